//! Folders and predictors that a run does not accept.

use super::*;

/// A disk with little space.
struct SmallDisk {
    free: u64,
}

const SMALL: SmallDisk = SmallDisk { free: 1000 };

impl Disk for SmallDisk {
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
        LocalDisk.sync(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }

    fn free_space(&self, _: &Path) -> io::Result<u64> {
        Ok(self.free)
    }
}

fn message<T>(result: Result<T>) -> String {
    format!("{:#}", result.err().unwrap())
}

#[test]
fn a_folder_with_results_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    run(LocalDisk, folder.path(), Existing::Refuse).unwrap();
    let before = files(folder.path());
    let refusal = message(open(LocalDisk, folder.path(), Existing::Refuse));
    assert!(refusal.contains("--resume goes on with it, --overwrite begins again"), "{refusal}");
    assert_eq!(files(folder.path()), before);
}

#[test]
fn a_file_of_someone_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("volume.vtp"), "mine").unwrap();
    for existing in [Existing::Refuse, Existing::Resume] {
        let refusal = message(open(LocalDisk, folder.path(), existing));
        assert!(refusal.contains("volume.vtp exists and belongs to no run"), "{refusal}");
    }
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn another_run_is_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    open(LocalDisk, folder.path(), Existing::Refuse).unwrap();
    let resume = |seed: u64, chunk: u64, parts: Vec<Part>| {
        let inputs = Map::from_iter([("seed".to_string(), json!(seed)), ("angle".to_string(), json!(ANGLE))]);
        message(Run::open(
            LocalDisk,
            Request { inputs, chunk, parts, ..request(folder.path(), Existing::Resume) },
            alone(),
        ))
    };
    assert_eq!(resume(8, CHUNK, parts()), "--resume: seed was 7 when the run began and is 8 now");
    assert!(resume(7, CHUNK, parts()[..1].to_vec()).contains("begun with 2 parts and has 1"));
    let mut longer = parts();
    longer[1].points += 1;
    assert!(resume(7, CHUNK, longer).contains("the files of part 'volume' differ"));
}

#[test]
fn two_runs_do_not_write_in_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(LocalDisk, folder.path(), Existing::Refuse).unwrap();
    let before = files(folder.path());
    for existing in [Existing::Refuse, Existing::Resume, Existing::Overwrite] {
        let refusal = message(open(LocalDisk, folder.path(), existing));
        assert!(refusal.contains("another run is writing there"), "{refusal}");
    }
    assert_eq!(files(folder.path()), before);
    drop(first);
    run(LocalDisk, folder.path(), Existing::Resume).unwrap();
}

#[test]
fn what_an_overwritten_run_left_goes_when_the_new_one_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = open(LocalDisk, folder.path(), Existing::Refuse).unwrap();
    for name in ["surface", "volume"] {
        first.write_part(name, &mut synthetic, &mut |_| ()).unwrap();
    }
    first.finish().unwrap();
    for name in ["metrics.json", "surface.png", "mine.txt"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    first.announce(["metrics.json".to_string(), "surface.png".to_string()]).unwrap();
    first.conclude().unwrap();

    let surface = || vec![parts().remove(0)];
    let open = |existing| {
        let usual = request(folder.path(), existing);
        Run::open(LocalDisk, Request { inputs: Map::new(), parts: surface(), ..usual }, alone()).unwrap()
    };
    drop(open(Existing::Overwrite));
    assert!(files(folder.path()).contains_key("volume.vtp"), "the new run is not complete");
    let mut second = open(Existing::Resume);
    second.write_part("surface", &mut synthetic, &mut |_| ()).unwrap();
    second.finish().unwrap();
    second.announce(["surface.png".to_string()]).unwrap();
    second.conclude().unwrap();
    let names: Vec<_> = files(folder.path()).into_keys().collect();
    assert_eq!(names, ["mine.txt", "run.json", "surface.png", "surface.safetensors", "surface.vtp"]);
}

#[test]
fn overwriting_removes_what_an_interrupted_run_left() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(LocalDisk, folder.path(), Existing::Refuse).unwrap());
    assert!(files(folder.path()).contains_key("volume.vtp.partial"));
    let usual = request(folder.path(), Existing::Overwrite);
    let mut second = Run::open(LocalDisk, Request { parts: vec![parts().remove(0)], ..usual }, alone()).unwrap();
    second.write_part("surface", &mut synthetic, &mut |_| ()).unwrap();
    second.finish().unwrap();
    second.conclude().unwrap();
    let names: Vec<_> = files(folder.path()).into_keys().collect();
    assert_eq!(names, ["run.json", "surface.safetensors", "surface.vtp"]);
}

#[test]
fn a_run_goes_on_in_chunks_of_another_size() {
    let whole = tempfile::tempdir().unwrap();
    run(LocalDisk, whole.path(), Existing::Refuse).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut first = open(LocalDisk, folder.path(), Existing::Refuse).unwrap();
    let mut dying = |range: Range<u64>| if range.start >= 3 { anyhow::bail!("killed") } else { synthetic(range) };
    first.write_part("surface", &mut dying, &mut |_| ()).unwrap_err();
    drop(first);
    let mut second =
        Run::open(LocalDisk, Request { chunk: 5, ..request(folder.path(), Existing::Resume) }, alone()).unwrap();
    let mut chunks = Vec::new();
    second.write_part("surface", &mut synthetic, &mut |_| ()).unwrap();
    second.write_part("volume", &mut synthetic, &mut |points| chunks.push(points)).unwrap();
    second.finish().unwrap();
    second.conclude().unwrap();
    assert_eq!(chunks, [5, 5, 1]);
    let (whole, resumed) = (files(whole.path()), files(folder.path()));
    for name in ["surface.vtp", "volume.vtp", "volume.safetensors"] {
        assert!(whole[name] == resumed[name], "{name}");
    }
}

#[test]
fn a_file_in_place_of_the_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results");
    std::fs::write(&file, "mine").unwrap();
    for refusal in
        [message(open(LocalDisk, &file, Existing::Refuse)), message(rehearse(&LocalDisk, &file, Existing::Refuse))]
    {
        assert!(refusal.contains("results: there is a file of this name; results need a folder"), "{refusal}");
    }
}

#[test]
fn what_is_made_later_must_fit_the_disk_too() {
    let small = Part::new("volume", VOLUME_POINTS, fields(), None, false, None);
    let large = Part::new("volume", VOLUME_POINTS, fields(), None, true, None);
    assert!(large.bytes() >= small.bytes() + VOLUME_POINTS * 28, "an .npz file has the same numbers again");
}

#[test]
fn a_damaged_state_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("run.json"), "{\"version\": 1").unwrap();
    let refusal = message(open(LocalDisk, folder.path(), Existing::Resume));
    assert!(refusal.contains("run.json is damaged; --overwrite begins again"), "{refusal}");
    assert!(open(LocalDisk, folder.path(), Existing::Overwrite).is_ok());
}

#[test]
fn a_disk_that_is_too_small_is_found_out_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = message(open(SMALL, folder.path(), Existing::Refuse));
    assert!(refusal.contains("of disk space, 1000 B are free"), "{refusal}");
    assert!(files(folder.path()).is_empty());
}

/// What a run would find, without changing anything.
fn rehearse(disk: &impl Disk, folder: &Path, existing: Existing) -> Result<Space> {
    Run::rehearse(disk, request(folder, existing), &Alone::default())
}

#[test]
fn what_is_on_the_disk_already_is_not_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let whole = rehearse(&LocalDisk, folder.path(), Existing::Refuse).unwrap().needed;
    let files: u64 = parts().iter().map(Part::bytes).sum();
    assert!(whole > files, "a run leaves some space for others");

    // Created files hold nothing but their headers and the faces of the mesh, and blocks are larger than these here.
    drop(open(LocalDisk, folder.path(), Existing::Refuse).unwrap());
    let begun = rehearse(&LocalDisk, folder.path(), Existing::Resume).unwrap().needed;
    assert!(begun <= files, "{begun} of {files}");
    if cfg!(unix) {
        assert!(begun < files, "{begun} of {files}");
    }
    // What is missing fits, and the space for others holds nobody up.
    assert!(open(SmallDisk { free: begun }, folder.path(), Existing::Resume).is_ok());
    if begun > 0 {
        assert!(open(SmallDisk { free: begun - 1 }, folder.path(), Existing::Resume).is_err());
    }

    // Beginning again removes the partial files first.
    let again = rehearse(&SmallDisk { free: whole }, folder.path(), Existing::Overwrite).unwrap();
    assert_eq!(again.needed, whole);
    assert!(again.free >= whole);
    let held = again.free - whole;
    assert!(open(SmallDisk { free: whole - held }, folder.path(), Existing::Overwrite).is_ok());
}

#[test]
fn written_chunks_need_no_space_again() {
    let points = 400_000;
    let part = || vec![Part::new("volume", points, fields(), None, false, None)];
    let folder = tempfile::tempdir().unwrap();
    let disk = |free| SmallDisk { free };
    let whole = |existing| {
        let (folder, inputs) = (folder.path().to_path_buf(), Map::new());
        Request { folder, inputs, origin: Map::new(), chunk: points / 4, parts: part(), existing }
    };
    let open = |free, existing| Run::open(disk(free), whole(existing), alone());
    let mut run = open(u64::MAX / 2, Existing::Refuse).unwrap();
    let mut last = u64::MAX;
    let mut needed = || {
        let space = Run::rehearse(&disk(u64::MAX / 2), whole(Existing::Resume), &Alone::default());
        let needed = space.unwrap().needed;
        assert!(needed < last || !cfg!(unix), "{needed} are needed after {last}");
        last = needed;
        needed
    };
    let total = part()[0].bytes();
    for quarter in 1..4 {
        let mut dying = |range: Range<u64>| match range.start >= quarter * points / 4 {
            true => anyhow::bail!("killed"),
            false => synthetic(range),
        };
        run.write_part("volume", &mut dying, &mut |_| ()).unwrap_err();
        drop(run);
        let needed = needed();
        if cfg!(unix) {
            let expected = total * (4 - quarter) / 4;
            assert!(needed.abs_diff(expected) < total / 50, "{needed}, expected {expected} of {total}");
        }
        assert!(open(needed.saturating_sub(1), Existing::Resume).is_err());
        run = open(needed, Existing::Resume).unwrap();
    }
}

#[test]
fn a_rehearsal_refuses_what_a_run_refuses_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let away = folder.path().join("not/there");
    assert!(rehearse(&LocalDisk, &away, Existing::Refuse).is_ok());
    assert!(!away.exists() && !folder.path().join("not").exists());
    std::fs::write(folder.path().join("file"), "text").unwrap();
    type Prepare = fn(&Path);
    let cases: [(&str, Prepare, &str); 5] = [
        (".", |_| (), "of disk space, 1000 B are free"),
        ("file/below", |_| (), "file is a file"),
        ("run", |folder| drop(run(LocalDisk, folder, Existing::Refuse)), "holds a run; --resume goes on with it"),
        ("other", |folder| std::fs::write(folder.join("volume.vtp"), "mine").unwrap(), "belongs to no run"),
        ("half", |folder| std::fs::write(folder.join("run.json"), "{").unwrap(), "run.json is damaged"),
    ];
    for (name, prepare, expected) in cases {
        let folder = folder.path().join(name);
        if !name.contains('/') {
            std::fs::create_dir_all(&folder).unwrap();
            prepare(&folder);
        }
        let refusal = message(rehearse(&SMALL, &folder, Existing::Refuse));
        assert!(refusal.contains(expected), "{name}: {refusal}");
        assert!(!refusal.contains("not/there"), "{refusal}");
    }
    let held = folder.path().join("held");
    std::fs::create_dir(&held).unwrap();
    let _running = open(LocalDisk, &held, Existing::Refuse).unwrap();
    assert!(message(rehearse(&LocalDisk, &held, Existing::Resume)).contains("another run is writing there"));
}

#[test]
fn two_arrays_of_one_name_are_refused() {
    for (name, expected) in [("pressure", "two arrays named 'pressure'"), ("positions", "two arrays named 'positions'")]
    {
        let folder = tempfile::tempdir().unwrap();
        let mut parts = parts();
        parts[0].fields[0].name = name.to_string();
        let usual = request(folder.path(), Existing::Refuse);
        let refusal = message(Run::open(LocalDisk, Request { parts, ..usual }, alone()));
        assert!(refusal.contains(expected), "{refusal}");
    }
}

#[test]
fn a_predictor_that_returns_too_little_is_named() {
    type Spoil = fn(&mut Chunk);
    let cases: [(Spoil, &str); 3] = [
        (|chunk| chunk.points.truncate(1), "surface: points 0 to 3: the predictor returned 1 positions for 3 points"),
        (|chunk| chunk.fields[0].truncate(8), "field 'velocity': the predictor returned 8 values, expected 9"),
        (|chunk| chunk.fields.truncate(1), "the predictor returned 1 fields, expected 2"),
    ];
    for (spoil, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut predictor = |range: Range<u64>| {
            let mut chunk = synthetic(range)?;
            spoil(&mut chunk);
            Ok(chunk)
        };
        let mut run = open(LocalDisk, folder.path(), Existing::Refuse).unwrap();
        let refusal = message(run.write_part("surface", &mut predictor, &mut |_| ()));
        assert!(refusal.contains(expected), "{refusal}");
    }
}
