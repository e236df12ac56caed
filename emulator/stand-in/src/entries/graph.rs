//! Graphs. An instantiated graph is a copy of its steps.

use super::{entries, give};
use crate::driver::Handle;
use crate::failure::Failure;

entries! {
    fn cuGraphInstantiateWithFlags(executable: *mut Handle, graph: Handle, _flags: u64) |driver, executable, graph, _| {
        let steps = driver.graphs.get(&(graph as u64)).ok_or(Failure::INVALID_HANDLE)?.clone();
        let handle = driver.new_handle();
        driver.graphs.insert(handle, steps);
        give(executable, handle as Handle)
    }

    fn cuGraphLaunch(executable: Handle, stream: Handle) |driver, executable, stream| {
        let steps = driver.graphs.get(&(executable as u64)).ok_or(Failure::INVALID_HANDLE)?.clone();
        steps.into_iter().try_for_each(|step| driver.enqueue(stream, step))
    }

    fn cuGraphUpload(_executable: Handle, _stream: Handle) |_, _, _| Ok(())

    fn cuGraphDestroy(graph: Handle) |driver, graph| {
        driver.graphs.remove(&(graph as u64)).map(drop).ok_or(Failure::INVALID_HANDLE)
    }

    fn cuGraphExecDestroy(executable: Handle) |driver, executable| {
        driver.graphs.remove(&(executable as u64)).map(drop).ok_or(Failure::INVALID_HANDLE)
    }
}
