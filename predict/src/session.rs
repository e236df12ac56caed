//! The processes that were started together, from the beginning of the program to its end.

use anyhow::{Error, Result, ensure};

use crate::args::Arguments;
use crate::launcher;
use crate::output::{Alone, Joined, LocalCrew};
#[cfg(feature = "mpi")]
use crate::ranks::World;
use crate::terminal::complain;
#[cfg(feature = "mpi")]
use crate::terminal::hush;

/// What this process is one of.
#[derive(Default)]
pub(crate) struct Session {
    #[cfg(feature = "mpi")]
    world: Option<World>,
}

impl Session {
    /// Looks at what started this process. Processes of MPI work on one result, without [`--join`](Joined).
    ///
    /// # Errors
    /// A launcher started several processes that could not find each other.
    pub(crate) fn start(join: bool) -> Result<Self> {
        let started = launcher::processes();
        if join || started.is_none() {
            return Ok(Self::default());
        }
        let started = started.unwrap_or(1);
        #[cfg(feature = "mpi")]
        {
            let world = World::start()?;
            ensure!(
                world.size() > 1 || started == 1,
                "the launcher started {started} processes, and each of them is alone: this program was built with {}, so start \
                 it by the mpirun or mpiexec of that, or let processes work together by --join",
                World::library()
            );
            if !world.leads() {
                hush();
            }
            Ok(Self { world: Some(world) })
        }
        #[cfg(not(feature = "mpi"))]
        {
            ensure!(
                started == 1,
                "the launcher started {started} processes, and this program was built without the feature mpi: build it with \
                 it, or let processes work together by --join"
            );
            Ok(Self::default())
        }
    }

    /// Those who work on the results.
    ///
    /// # Errors
    /// As [`Joined::enter`]; a sweep by several processes.
    pub(crate) fn crew(&self, arguments: &Arguments) -> Result<LocalCrew> {
        #[cfg(feature = "mpi")]
        if let Some(world) = &self.world {
            return Ok(Box::new(world.crew()));
        }
        // A dry run reads what is there and touches nothing.
        Ok(match arguments.output.join && !arguments.output.dry_run {
            true => Box::new(Joined::enter(&arguments.output.out)?),
            false => Box::new(Alone::default()),
        })
    }

    /// Whether processes work together that cannot share a sweep.
    pub(crate) fn is_shared(&self) -> bool {
        #[cfg(feature = "mpi")]
        return self.world.as_ref().is_some_and(|world| world.size() > 1);
        #[cfg(not(feature = "mpi"))]
        false
    }

    /// Reports an error, and ends all processes that were started together.
    pub(crate) fn fail(self, error: &Error) {
        #[cfg(feature = "mpi")]
        if let Some(world) = self.world.filter(|world| world.size() > 1) {
            complain(format_args!("error: {}: {error:#}", world.name()));
            world.abort();
        }
        complain(format_args!("error: {error:#}"));
    }
}
