//! Links that somebody planted in the folder of results, and folders that cannot be written.

#![cfg(unix)]

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

const PLANTED: [&str; 8] = [
    "surface.vtp",
    "surface.vtp.partial",
    "volume.safetensors",
    "volume.safetensors.partial",
    "run.json",
    "run.json.partial",
    LOCK_FILE,
    "surface.npz.partial",
];

/// A folder of results with a link, and the file that the link leads to.
fn planted(name: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let (folder, victim) = (place.path().join("out"), place.path().join("victim"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&victim, "untouched").unwrap();
    symlink(&victim, folder.join(name)).unwrap();
    (place, folder, victim)
}

#[test]
fn no_link_is_followed() {
    for name in PLANTED {
        for existing in [Existing::Refuse, Existing::Overwrite, Existing::Resume] {
            let (_place, folder, victim) = planted(name);
            let ended = run(LocalDisk, &folder, existing);
            assert_eq!(std::fs::read(&victim).unwrap(), b"untouched", "{name}");
            // Either it was refused, or it has a file of its own in the place of the link.
            if ended.is_ok() && name != "surface.npz.partial" {
                let found = std::fs::symlink_metadata(folder.join(name));
                assert!(found.is_err() || found.unwrap().is_file(), "{name} is a link still");
            }
        }
    }
}

#[test]
fn a_link_that_leads_nowhere_makes_no_file() {
    for name in PLANTED {
        let (_place, folder, victim) = planted(name);
        std::fs::remove_file(&victim).unwrap();
        let _ = run(LocalDisk, &folder, Existing::Overwrite);
        assert!(!victim.exists(), "{name} was followed");
    }
}

#[test]
fn a_link_in_the_place_of_a_partial_file_is_damage() {
    let (_place, folder, _) = planted("other");
    let mut half = open(LocalDisk, &folder, Existing::Refuse).unwrap();
    half.write_part("surface", &mut synthetic, &mut |_| ()).unwrap();
    drop(half);
    let (file, elsewhere) = (folder.join("surface.vtp.partial"), folder.join("elsewhere"));
    std::fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    let error = run(LocalDisk, &folder, Existing::Resume).unwrap_err();
    assert!(format!("{error:#}").contains("is damaged: it is no regular file"), "{error:#}");
}

#[test]
fn a_folder_that_cannot_be_written_is_noticed_before_anything_is_computed() {
    // Nobody can write there, not even root.
    let Some(folder) = ["/proc/self", "/sys/kernel"].map(Path::new).into_iter().find(|path| path.is_dir()) else {
        return;
    };
    for folder in [folder.to_path_buf(), folder.join("new")] {
        let error = format!(
            "{:#}",
            Run::rehearse(&LocalDisk, request(&folder, Existing::Refuse), &Alone::default()).unwrap_err()
        );
        assert!(error.contains("--out: cannot write into"), "{error}");
    }
}
