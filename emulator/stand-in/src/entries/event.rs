//! Events.

use super::{entries, give};
use crate::driver::{Event, Handle};
use crate::failure::Failure;
use crate::step::Step;

entries! {
    fn cuEventCreate(event: *mut Handle, _flags: u32) |driver, event, _| {
        let (device, _) = driver.current()?;
        let handle = driver.new_handle();
        driver.events.insert(handle, Event::new(device));
        give(event, handle as Handle)
    }

    fn cuEventDestroy_v2(event: Handle) |driver, event| {
        driver.events.remove(&(event as u64)).map(drop).ok_or(Failure::INVALID_HANDLE)
    }

    fn cuEventRecord(event: Handle, stream: Handle) |driver, event, stream| {
        let id = driver.stream(stream);
        let (device, of) = driver.current()?;
        let in_capture = of.stream(id)?.capture.is_some();
        let event = driver.event(event)?;
        if event.device != device {
            return Err(Failure::INVALID_HANDLE);
        }
        // In a graph it only orders what the graph does, and that is in order.
        if in_capture {
            event.captured = true;
            return Ok(());
        }
        let mark = event.record(id);
        driver.enqueue(stream, Step::Record(mark))
    }

    fn cuEventSynchronize(event: Handle) |driver, event| {
        let event = driver.event(event)?;
        let (device, mark, source) = (event.device, event.mark(), event.source);
        let Some(source) = source else { return Ok(()) };
        let device = &mut driver.devices[device];
        device.run_until(source, &mark);
        device.check()
    }

    fn cuEventQuery(event: Handle) |driver, event| {
        let event = driver.event(event)?;
        if event.mark().is_reached() { Ok(()) } else { Err(Failure::NOT_READY) }
    }

    fn cuEventElapsedTime_v2(milliseconds: *mut f32, _start: Handle, _end: Handle) |_, milliseconds, _, _| {
        give(milliseconds, 0.)
    }
}
