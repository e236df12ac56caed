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
//! Who may write is told by a lock on the folder: one process, or a [crew](Crew) of them, each of which takes blocks of
//! chunks that nobody else has. `run.json` says what the run is made of, which points lie safely on the disk, and whether
//! files may have their final names. It is replaced in one step, after the chunks are synced: those of a second, or of
//! 64 MB, together. Processes that [join](Joined) each other say the same in a file for each block, until the last of
//! them adds that up. Links in the folder are not followed.

mod asked;
mod blocks;
mod chunk;
mod claims;
mod codec;
mod crew;
mod disk;
mod document;
mod draft;
mod join;
mod layout;
mod lock;
mod npz;
mod pack;
mod part;
mod presence;
mod ranges;
mod run;
mod safetensors;
mod state;
#[cfg(test)]
mod tests;
mod vtk;

/// The crew of a run on the file system.
pub(crate) type LocalCrew = Box<dyn Crew<LocalDisk>>;

#[cfg(feature = "mpi")]
pub(crate) use asked::Asked;
#[cfg(feature = "mpi")]
pub(crate) use blocks::Settled;
pub(crate) use chunk::{Chunk, FieldSpec, Predict};
pub(crate) use codec::Codec;
pub(crate) use crew::{Alone, Crew};
pub(crate) use disk::{LocalDisk, write_whole};
pub(crate) use draft::{Existing, Request, Space, human_bytes};
pub(crate) use join::Joined;
pub(crate) use lock::FolderLock;
pub(crate) use npz::write_npz;
pub(crate) use part::Part;
pub(crate) use run::{Leaving, Run, made_of_complete, progress};
#[cfg(any(test, fuzzing))]
pub(crate) use state::State;
pub(crate) use vtk::{GridShape, Kept, Shape, vtk_layout};
