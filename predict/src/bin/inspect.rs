//! Says what a checkpoint holds, which model it fits, and how much memory that model takes: `inspect --help`.

fn main() -> std::process::ExitCode {
    predict::inspect::main()
}
