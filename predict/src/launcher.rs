//! What launchers of parallel programs tell a process by its environment.

use std::env;

/// The place of a process among those of its host, as Open MPI, Intel MPI and MPICH, MVAPICH and Slurm call it.
const LOCAL_RANK: [&str; 4] =
    ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"];

/// How many processes there are, as they say.
const PROCESSES: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"];

/// The place of this process among those that were started together on its host; 0 where nobody says.
pub(crate) fn local_rank() -> usize {
    first_number(&LOCAL_RANK, |name| env::var(name).ok()).unwrap_or(0)
}

/// How many processes a launcher started together with this one, if one did: Open MPI, MPICH and Intel MPI, and a step of
/// Slurm.
pub(crate) fn processes() -> Option<usize> {
    first_number(&PROCESSES, |name| env::var(name).ok())
}

/// The first of some variables that is a number.
fn first_number(names: &[&str], variable: impl Fn(&str) -> Option<String>) -> Option<usize> {
    names.iter().find_map(|name| variable(name)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launcher_that_started_a_process_is_heard() {
        let of = |known: &'static [(&str, &str)]| {
            let variable = |name: &str| known.iter().find(|(own, _)| *own == name).map(|(_, value)| value.to_string());
            first_number(&LOCAL_RANK, variable)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("SLURM_LOCALID", "3")]), Some(3));
        // mpirun within a job of Slurm.
        assert_eq!(of(&[("SLURM_LOCALID", "0"), ("OMPI_COMM_WORLD_LOCAL_RANK", "2")]), Some(2));
        assert_eq!(of(&[("MPI_LOCALRANKID", "x"), ("SLURM_LOCALID", "1")]), Some(1));
    }
}
