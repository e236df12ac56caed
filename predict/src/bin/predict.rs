//! Predicts the flow around a body: `predict --help`.

fn main() -> std::process::ExitCode {
    predict::main()
}
