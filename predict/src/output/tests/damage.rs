//! Files that were changed between a kill and its `--resume`.

use super::*;

/// How far the run is that is killed.
#[derive(Debug, Clone, Copy)]
enum Killed {
    /// After the surface part.
    Between,
    /// After the first rename.
    Renaming,
    /// Not at all.
    Never,
}

/// Leaves a run of a kind in a folder.
fn leave(folder: &Path, killed: Killed, existing: Existing) {
    let mut run = open(LocalDisk, folder, existing).unwrap();
    run.write_part("surface", &mut synthetic, &mut |_| ()).unwrap();
    if let Killed::Between = killed {
        return;
    }
    run.write_part("volume", &mut synthetic, &mut |_| ()).unwrap();
    if let Killed::Never = killed {
        return run.finish().unwrap();
    }
    drop(run);
    // The state is written in three steps and a rename, then the first file is renamed.
    let steps = Cell::new(5);
    let disk = DyingDisk { steps: &steps, error: io::ErrorKind::Interrupted };
    open(disk, folder, Existing::Resume).unwrap().finish().unwrap_err();
    assert!(folder.join("surface.vtp").exists() && folder.join("volume.vtp.partial").exists());
}

#[test]
fn damaged_and_missing_files_are_named_and_left_as_they_are() {
    type Damage = fn(&Path) -> io::Result<()>;
    let cut: Damage = |path| std::fs::OpenOptions::new().write(true).open(path)?.set_len(100);
    let longer: Damage = |path| {
        let length = std::fs::metadata(path)?.len();
        std::fs::OpenOptions::new().write(true).open(path)?.set_len(length + 1)
    };
    let remove: Damage = |path| std::fs::remove_file(path);
    let cases = [
        (Killed::Between, "surface.vtp.partial", cut, "is damaged: 100 bytes of "),
        (Killed::Between, "surface.vtp.partial", longer, "is damaged: "),
        (Killed::Between, "surface.vtp.partial", remove, "is missing"),
        (Killed::Between, "volume.safetensors.partial", remove, "is missing"),
        (Killed::Renaming, "surface.vtp", cut, "is damaged: 100 bytes of "),
        (Killed::Renaming, "surface.vtp", remove, "is missing"),
        (Killed::Renaming, "volume.vtp.partial", cut, "is damaged: 100 bytes of "),
        (Killed::Never, "volume.safetensors", cut, "is damaged: 100 bytes of "),
        (Killed::Never, "surface.vtp", remove, "is missing"),
    ];
    for (killed, name, damage, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        leave(folder.path(), killed, Existing::Refuse);
        damage(&folder.path().join(name)).unwrap();
        let before = files(folder.path());
        let message = format!("{:#}", run(LocalDisk, folder.path(), Existing::Resume).unwrap_err());
        let expected = [name, expected, "--overwrite begins again"];
        assert!(expected.iter().all(|words| message.contains(words)), "{killed:?}, {name}: {message}");
        assert_eq!(files(folder.path()), before, "{killed:?}, {name}");
        run(LocalDisk, folder.path(), Existing::Overwrite).unwrap();
    }
}

#[test]
fn results_of_an_earlier_run_are_never_taken_for_those_of_this_one() {
    let folder = tempfile::tempdir().unwrap();
    leave(folder.path(), Killed::Never, Existing::Refuse);
    leave(folder.path(), Killed::Between, Existing::Overwrite);
    std::fs::remove_file(folder.path().join("surface.vtp.partial")).unwrap();
    let message = format!("{:#}", run(LocalDisk, folder.path(), Existing::Resume).unwrap_err());
    assert!(message.contains("surface.vtp.partial is missing; --overwrite begins again"), "{message}");
}

#[test]
fn a_file_that_is_cut_while_the_run_writes_is_not_given_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = open(LocalDisk, folder.path(), Existing::Refuse).unwrap();
    for name in ["surface", "volume"] {
        run.write_part(name, &mut synthetic, &mut |_| ()).unwrap();
    }
    let cut = folder.path().join("surface.vtp.partial");
    std::fs::OpenOptions::new().write(true).open(&cut).unwrap().set_len(7).unwrap();
    let message = format!("{:#}", run.finish().unwrap_err());
    assert!(message.contains("surface.vtp.partial is damaged: 7 bytes of "), "{message}");
    assert!(cut.exists() && !folder.path().join("surface.vtp").exists());
}
