//! The processes that were started together, from the beginning of the program to its end.

use anyhow::{Error, Result, ensure};

use crate::args::{Arguments, OutputArguments};
use crate::launcher;
use crate::output::{Alone, Joined, LocalCrew, LocalDisk};
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
    /// A dry run is that of the rank that leads.
    #[cfg(feature = "mpi")]
    dry_run: bool,
}

impl Session {
    /// Looks at what started this process. Processes of MPI work on one result, without [`--join`](Joined).
    ///
    /// # Errors
    /// A launcher started several processes that could not find each other.
    pub(crate) fn start(output: &OutputArguments) -> Result<Self> {
        let started = launcher::processes();
        if output.join || started.is_none() {
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
            Ok(Self { world: Some(world), dry_run: output.dry_run })
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

    /// Those who work on the results, or on those of a row of a sweep.
    ///
    /// # Errors
    /// As [`Joined::enter`].
    pub(crate) fn crew(&self, arguments: &Arguments) -> Result<LocalCrew> {
        if let Some(ranks) = self.ranks() {
            return Ok(ranks);
        }
        // A dry run reads what is there and touches nothing.
        Ok(match arguments.output.join && !arguments.output.dry_run {
            true => Box::new(Joined::enter(&arguments.output.out)?),
            false => Box::new(Alone::default()),
        })
    }

    /// Whether this process speaks for all that a launcher started with it.
    pub(crate) fn leads(&self) -> bool {
        #[cfg(feature = "mpi")]
        return self.world.as_ref().is_none_or(World::leads);
        #[cfg(not(feature = "mpi"))]
        true
    }

    /// A text that says what to do, as the process that leads reads it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read_once(&self, read: impl Fn() -> Result<String>) -> Result<String> {
        let Some(mut ranks) = self.ranks() else { return read() };
        if let Some(bytes) = ranks.receive("")? {
            return Ok(String::from_utf8(bytes)?);
        }
        let text = read()?;
        ranks.publish(&LocalDisk, "", &mut || Ok(text.clone().into_bytes()))?;
        Ok(text)
    }

    /// All ranks of MPI, if they work together.
    fn ranks(&self) -> Option<LocalCrew> {
        #[cfg(feature = "mpi")]
        return self.world.as_ref().filter(|_| !self.dry_run).map(|world| -> LocalCrew { Box::new(world.crew()) });
        #[cfg(not(feature = "mpi"))]
        None
    }

    /// After an error in one of several runs: whether the others can begin, as no process waits for this one.
    pub(crate) fn goes_on(&self) -> bool {
        #[cfg(feature = "mpi")]
        return self.world.as_ref().is_none_or(World::gives_up);
        #[cfg(not(feature = "mpi"))]
        true
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
