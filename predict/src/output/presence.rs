//! Whether processes on other hosts are at work, told without locks.
//!
//! Locks of a file system may be those of one host alone: each host then believes to be alone in the folder. So every
//! process has a file with a number that grows as long as it lives. Whoever believes to be alone watches those of other
//! hosts for a while. No clocks are compared.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::disk::open_itself;
use crate::terminal::remark;

/// What the names begin with.
const PROCESS: &str = "process";

/// How often the number grows, and how long one is watched that may have stopped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pulse {
    pub(super) beat: Duration,
    pub(super) watch: Duration,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { beat: Duration::from_secs(2), watch: Duration::from_secs(7) }
    }
}

/// The file of a process, which goes with it unless it is killed.
#[derive(Debug)]
pub(super) struct Presence {
    path: PathBuf,
    /// Ends the thread when it is dropped.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Presence {
    /// Tells in a folder that a process of a host is at work, until it is dropped.
    pub(super) fn announce(folder: &Path, host: &str, process: u32, pulse: Pulse) -> Result<Self> {
        let path = folder.join(format!("{PROCESS}.{process}.{host}"));
        let context = || format!("cannot write {}", path.display());
        let file = open_itself(File::options().create(true).truncate(true).write(true), &path).with_context(context)?;
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || beat(file, &stopped, pulse.beat));
        Ok(Self { path, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.stop.take();
        let _ = self.thread.take().map(JoinHandle::join);
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Writes a growing number. A file that cannot be written at a time may be at the next.
fn beat(mut file: File, stopped: &Receiver<()>, every: Duration) {
    for number in 0_u64.. {
        let _ = file.rewind().and_then(|()| file.write_all(&number.to_le_bytes())).and_then(|()| file.sync_data());
        if stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Checks that no process of another host is at work. Where one was, this takes a while.
///
/// # Errors
/// One is: the locks of the file system are not those of all hosts.
pub(super) fn check_alone(folder: &Path, host: &str, pulse: Pulse) -> Result<()> {
    let before = numbers(folder, host)?;
    let Some(elsewhere) = before.keys().next() else { return Ok(()) };
    let name = folder.display();
    remark(format_args!("note: {name}: looking whether {elsewhere} is still at work"));
    std::thread::sleep(pulse.watch);
    for (process, number) in numbers(folder, host)? {
        if before.get(&process) != Some(&number) {
            bail!(
                "--join: {process} is at work in {name} and holds no lock that this host ({host}) could see: locks of this \
                 file system do not reach beyond a host; mount it so that they do (Lustre: flock, NFS: without nolock and \
                 local_lock), or give each host a folder of its own"
            );
        }
    }
    Ok(())
}

/// The numbers of the processes of other hosts, by what messages call these.
fn numbers(folder: &Path, host: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let context = || folder.display().to_string();
    let mut numbers = BTreeMap::new();
    for entry in std::fs::read_dir(folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        let name = entry.file_name();
        let words = name.to_str().and_then(|name| name.strip_prefix(PROCESS)?.strip_prefix('.')?.split_once('.'));
        let Some((process, elsewhere)) = words.filter(|(_, elsewhere)| *elsewhere != host) else { continue };
        // A file that has gone belongs to a process that has ended.
        let Ok(number) = open_itself(File::options().read(true), &entry.path()).and_then(read) else { continue };
        numbers.insert(format!("process {process} on {elsewhere}"), number);
    }
    Ok(numbers)
}

fn read(file: File) -> io::Result<Vec<u8>> {
    let mut number = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, 8), &mut number)?;
    Ok(number)
}

/// The name of this host, as it can stand in the name of a file.
pub(crate) fn host() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    name.chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || ".-_".contains(letter) { letter } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Pulse = Pulse { beat: Duration::from_millis(10), watch: Duration::from_millis(500) };

    #[test]
    fn a_living_process_of_another_host_is_found_and_a_dead_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let check = || check_alone(folder.path(), "here", QUICK);
        let own = Presence::announce(folder.path(), "here", 1, QUICK).unwrap();
        check().unwrap();
        let other = Presence::announce(folder.path(), "there.cluster", 2, QUICK).unwrap();
        let error = check().unwrap_err().to_string();
        assert!(error.starts_with("--join: process 2 on there.cluster is at work in "), "{error}");
        drop((own, other));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // What a killed process leaves.
        std::fs::write(folder.path().join("process.2.there"), 7_u64.to_le_bytes()).unwrap();
        check().unwrap();
    }
}
