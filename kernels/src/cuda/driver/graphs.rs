//! Launches that the driver records on a stream and repeats at once. A graph's name is the address of what the driver made of it.

use cudarc::driver::{result, sys};

use super::failed;
use crate::cuda::device::{DeviceError, GraphId};

/// # Safety
/// The stream's context is current.
pub(super) unsafe fn begin(stream: sys::CUstream) -> Result<(), DeviceError> {
    // Only this thread is kept from what cannot be recorded: others may be loading or measuring.
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: the caller's.
    unsafe { result::stream::begin_capture(stream, mode) }
        .map_err(|error| failed("cuStreamBeginCapture", error))
}

/// # Safety
/// The stream's context is current.
pub(super) unsafe fn end(stream: sys::CUstream) -> Result<GraphId, DeviceError> {
    // SAFETY: the caller's; what was recorded is needed no more once it is made ready, and is uploaded so that the first
    // replay does not wait for that.
    unsafe {
        let recorded = result::stream::end_capture(stream);
        let recorded = recorded.map_err(|error| failed("cuStreamEndCapture", error))?;
        if recorded.is_null() {
            let why = "nothing was recorded".to_owned();
            return Err(DeviceError::Failed { what: "cuStreamEndCapture", why });
        }
        let ready = result::graph::instantiate(recorded, sys::CUgraphInstantiate_flags(0));
        let destroyed = result::graph::destroy(recorded);
        let ready = ready.map_err(|error| failed("cuGraphInstantiate", error))?;
        let uploaded = destroyed.and_then(|()| result::graph::upload(ready, stream));
        if let Err(error) = uploaded {
            let _ = result::graph::exec_destroy(ready);
            return Err(failed("cuGraphUpload", error));
        }
        Ok(ready.expose_provenance() as GraphId)
    }
}

fn ready(graph: GraphId) -> sys::CUgraphExec {
    std::ptr::with_exposed_provenance_mut(graph as usize)
}

/// # Safety
/// The graph is one of [`end`], not forgotten, and what it recorded may be run on the stream.
pub(super) unsafe fn replay(graph: GraphId, stream: sys::CUstream) -> Result<(), DeviceError> {
    // SAFETY: the caller's.
    unsafe { result::graph::launch(ready(graph), stream) }.map_err(|error| failed("cuGraphLaunch", error))
}

/// The driver keeps one that still runs until it has ended.
///
/// # Safety
/// The graph is one of [`end`], and nobody has its name any more.
pub(super) unsafe fn forget(graph: GraphId) {
    // SAFETY: the caller's. A context that broke has lost it anyway.
    let _ = unsafe { result::graph::exec_destroy(ready(graph)) };
}
