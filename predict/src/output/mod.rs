//! Results on disk: written chunk by chunk, resumable after a kill at any moment, never half under the final name.
//!
//! Every file is one whose [layout](layout::FileLayout) is known before the first point is predicted: a VTK file with
//! appended raw data, and safetensors. A chunk is then a handful of writes at known places, the memory in use is that of
//! one chunk, and writing a chunk again changes nothing. That is why VTK files are laid out here instead of by a library,
//! which would need the whole file in memory.
//!
//! ```text
//! check free space → NAME.partial at full length → run.json → chunks, sync, run.json → … → run.json → rename → run.json
//! ```
//!
//! What of a mesh goes out as it came is copied before the first chunk. A file whose arrays are to be compressed is packed
//! when all points are done, before it gets its name.
//!
//! The folder is locked for the whole run. `run.json` says what the run is made of, how many chunks lie safely on the
//! disk, and whether files may have their final names. It is replaced in one step, after the
//! chunks are synced: those of a second, or of 64 MB, together. Links in the folder are not followed.

mod chunk;
mod codec;
mod disk;
mod document;
mod layout;
mod lock;
mod npz;
mod pack;
mod run;
mod safetensors;
mod state;
#[cfg(test)]
mod tests;
mod vtk;

pub(crate) use chunk::{Chunk, FieldSpec, Predict};
pub(crate) use codec::Codec;
pub(crate) use disk::{LocalDisk, write_whole};
pub(crate) use npz::write_npz;
pub(crate) use run::{Existing, Part, Request, Run, Space, human_bytes};
pub(crate) use state::State;
pub(crate) use vtk::{GridShape, Kept, Shape, vtk_layout};
