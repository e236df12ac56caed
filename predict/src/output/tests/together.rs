//! Chunks that are made safe together, and files that are made from finished ones.

use super::*;

/// Counts the calls that reach the disk.
#[derive(Default)]
struct CountingDisk {
    syncs: Cell<usize>,
}

impl Disk for &CountingDisk {
    fn create(&self, path: &Path, length: u64) -> io::Result<()> {
        LocalDisk.create(path, length)
    }

    fn create_new(&self, path: &Path) -> io::Result<bool> {
        LocalDisk.create_new(path)
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        LocalDisk.write_at(path, offset, bytes)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.syncs.set(self.syncs.get() + 1);
        LocalDisk.sync(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }

    fn free_space(&self, folder: &Path) -> io::Result<u64> {
        LocalDisk.free_space(folder)
    }
}

fn many(points: u64) -> Request {
    let folder = Path::new("");
    let parts = vec![Part::new("volume", points, fields(), None, false, None)];
    Request { parts, ..request(folder, Existing::Refuse) }
}

#[test]
fn small_chunks_are_made_safe_together() {
    let folder = tempfile::tempdir().unwrap();
    let disk = CountingDisk::default();
    let (points, mut predicted) = (3_000, 0);
    let request = Request { folder: folder.path().to_path_buf(), ..many(points) };
    let mut run = Run::open(&disk, request, alone()).unwrap();
    let (before, start) = (disk.syncs.get(), std::time::Instant::now());
    run.write_part("volume", &mut synthetic, &mut |points| predicted += points).unwrap();
    let (syncs, seconds) = (disk.syncs.get() - before, start.elapsed().as_secs());
    assert_eq!((predicted, run.done()), (points, points));
    // Two files and the state, each second and at the end; each of the thousand chunks would be 3,000.
    assert!(syncs as u64 <= 3 * (seconds + 1), "{syncs} syncs in {seconds} s");
}

#[test]
fn what_was_written_before_a_failure_is_made_safe() {
    let folder = tempfile::tempdir().unwrap();
    let request = || Request { folder: folder.path().to_path_buf(), ..many(300) };
    let mut broken = |range: Range<u64>| match range.start {
        90.. => anyhow::bail!("out of memory"),
        _ => synthetic(range),
    };
    let mut run = Run::open(LocalDisk, request(), alone()).unwrap();
    run.write_part("volume", &mut broken, &mut |_| ()).unwrap_err();
    drop(run);
    let resumed = Run::open(LocalDisk, Request { existing: Existing::Resume, ..request() }, alone()).unwrap();
    assert_eq!(resumed.done(), 90);
}

#[test]
fn files_that_a_killed_run_was_making_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = open(LocalDisk, folder.path(), Existing::Refuse).unwrap();
    for name in ["surface", "volume"] {
        first.write_part(name, &mut synthetic, &mut |_| ()).unwrap();
    }
    first.finish().unwrap();
    first.announce(["surface.npz".to_string(), "volume.npz".to_string()]).unwrap();
    std::fs::write(folder.path().join("surface.npz"), "whole").unwrap();
    std::fs::write(folder.path().join("volume.npz.partial"), "half").unwrap();
    // It is killed here.
    drop(first);
    run(LocalDisk, folder.path(), Existing::Overwrite).unwrap();
    let names: Vec<_> = files(folder.path()).into_keys().collect();
    assert_eq!(names, ["run.json", "surface.safetensors", "surface.vtp", "volume.safetensors", "volume.vtp"]);
}

/// Several ranges at once, of which the last begun is the first to end.
struct Backwards {
    begun: Vec<Range<u64>>,
    most: usize,
    /// Where it fails.
    fails: Option<u64>,
}

impl Backwards {
    fn new(fails: Option<u64>) -> Self {
        Self { begun: Vec::new(), most: 0, fails }
    }
}

impl Predict for Backwards {
    fn width(&self) -> usize {
        3
    }

    fn begin(&mut self, range: Range<u64>) -> Result<Option<Chunk>> {
        self.begun.push(range);
        self.most = self.most.max(self.begun.len());
        Ok(None)
    }

    fn end(&mut self) -> Result<(Range<u64>, Result<Chunk>)> {
        let range = self.begun.pop().unwrap();
        let fails = self.fails == Some(range.start);
        Ok((range.clone(), if fails { Err(anyhow::anyhow!("out of memory")) } else { synthetic(range) }))
    }
}

#[test]
fn chunks_that_end_in_another_order_give_the_same_bytes() {
    let whole = tempfile::tempdir().unwrap();
    run(LocalDisk, whole.path(), Existing::Refuse).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut run = open(LocalDisk, folder.path(), Existing::Refuse).unwrap();
    let (mut predictor, mut points) = (Backwards::new(Some(6)), 0);
    run.write_part("surface", &mut Backwards::new(None), &mut |more| points += more).unwrap();
    let error = run.write_part("volume", &mut predictor, &mut |more| points += more).unwrap_err();
    assert_eq!(format!("{error:#}"), "volume: points 6 to 9: out of memory");
    // 6 to 9 was begun third and ends first.
    assert_eq!((points, predictor.most), (SURFACE_POINTS, 3));
    drop(run);
    let mut run = open(LocalDisk, folder.path(), Existing::Resume).unwrap();
    assert_eq!(run.done(), SURFACE_POINTS);
    let error = run.write_part("volume", &mut Backwards::new(Some(0)), &mut |_| ()).unwrap_err();
    assert_eq!(format!("{error:#}"), "volume: points 0 to 3: out of memory");
    drop(run);
    // All but the first chunk was ready before it.
    let mut run = open(LocalDisk, folder.path(), Existing::Resume).unwrap();
    assert_eq!(run.done(), SURFACE_POINTS + VOLUME_POINTS - CHUNK);
    run.write_part("volume", &mut Backwards::new(None), &mut |_| ()).unwrap();
    run.finish().unwrap();
    run.conclude().unwrap();
    assert_eq!(files(folder.path()), files(whole.path()));
}
