//! Streams, and their capture into graphs.

use super::{entries, give};
use crate::device::{Capture, Stream};
use crate::driver::Handle;
use crate::failure::Failure;
use crate::step::{Step, StreamId};

/// A stream that the legacy stream does not wait for.
const NON_BLOCKING: u32 = 1;

entries! {
    fn cuStreamCreate(stream: *mut Handle, flags: u32) |driver, stream, flags| {
        let handle = driver.new_handle();
        let (_, device) = driver.current()?;
        let blocking = flags & NON_BLOCKING == 0;
        device.streams.insert(StreamId::Created(handle), Stream::new(blocking));
        give(stream, handle as Handle)
    }

    fn cuStreamDestroy_v2(stream: Handle) |driver, stream| {
        let id = driver.stream(stream);
        let (_, device) = driver.current()?;
        // What it has to do is done all the same.
        device.run(id);
        match id {
            StreamId::Created(_) => device.streams.remove(&id).map(drop).ok_or(Failure::INVALID_HANDLE),
            _ => Err(Failure::INVALID_HANDLE),
        }
    }

    fn cuStreamSynchronize(stream: Handle) |driver, stream| {
        let id = driver.stream(stream);
        let (_, device) = driver.current()?;
        device.refuse_in_capture(Some(id))?;
        device.run_in_order(id);
        device.check()
    }

    fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: u32) |driver, stream, event, _| {
        let id = driver.stream(stream);
        let event = driver.event(event)?;
        let (of, mark, source, captured) = (event.device, event.mark(), event.source, event.captured);
        let (number, device) = driver.current()?;
        match (&mut device.stream(id)?.capture, captured) {
            (Some(_), true) => return Ok(()),
            (None, true) => return Err(Failure::CAPTURED_EVENT),
            // What came before a capture orders it by the stream alone.
            (Some(capture), false) if source.is_some() => {
                capture.is_invalid = true;
                return Err(Failure::STREAM_CAPTURE_ISOLATION);
            }
            _ => {}
        }
        // Of an event that was never recorded nobody waits.
        let Some(source) = source else { return Ok(()) };
        // A device does what its own streams have to do: another one does it at once.
        if of != number {
            driver.devices[of].run_until(source, &mark);
            return driver.devices[of].check();
        }
        driver.enqueue(stream, Step::Wait(mark, source))
    }

    fn cuStreamIsCapturing(stream: Handle, status: *mut u32) |driver, stream, status| {
        let id = driver.stream(stream);
        let (_, device) = driver.current()?;
        // As the driver's header numbers them: none, active, invalid.
        let capture = device.stream(id)?.capture.as_ref();
        give(status, capture.map_or(0, |capture| if capture.is_invalid { 2 } else { 1 }))
    }

    fn cuStreamBeginCapture_v2(stream: Handle, _mode: u32) |driver, stream, _| {
        let id = driver.stream(stream);
        let (_, device) = driver.current()?;
        let stream = device.stream(id)?;
        if id == StreamId::Legacy || stream.capture.is_some() {
            return Err(Failure::ILLEGAL_STATE);
        }
        stream.capture = Some(Capture::default());
        Ok(())
    }

    fn cuStreamEndCapture(stream: Handle, graph: *mut Handle) |driver, stream, graph| {
        let id = driver.stream(stream);
        let (_, device) = driver.current()?;
        let capture = device.stream(id)?.capture.take().ok_or(Failure::ILLEGAL_STATE)?;
        if capture.is_invalid {
            give(graph, std::ptr::null_mut())?;
            return Err(Failure::STREAM_CAPTURE_INVALIDATED);
        }
        let handle = driver.new_handle();
        driver.graphs.insert(handle, capture.steps);
        give(graph, handle as Handle)
    }
}
