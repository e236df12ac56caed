//! The command line.

use std::path::PathBuf;

use candle_mixed_attention::SquareBanks;
use candle_mixed_attention::candle_core::DType;
use clap::Parser;

/// Says what a checkpoint holds, which model it fits, and how much memory that model takes.
///
/// Fails if the checkpoint does not fit its configuration.
#[derive(Debug, Parser)]
#[command(name = "inspect", version, max_term_width = 100)]
pub(super) struct Arguments {
    /// Weights: .safetensors, a sharded .safetensors.index.json, or a PyTorch .th or .pt file
    #[arg(required_unless_present = "completions")]
    pub file: Option<PathBuf>,
    /// Which weights of a PyTorch file to take, by the name of their dictionary such as ema_state_dict [default: the only
    /// ones]
    #[arg(long, value_name = "KEY")]
    pub weights_key: Option<String>,
    /// Configuration of an AB-UPT as JSON [default: the model_config in FILE, if it has one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which way round untied square weights are stored: plain (x W) or transposed (x Wᵀ) [default: what the configuration
    /// says; plain for a .th file, which does not say it]
    #[arg(long, value_name = "KIND", value_parser = square_banks)]
    pub square_banks: Option<SquareBanks>,
    /// Write the configuration as JSON, with statistics to fill in: a --config for predict, in the form of
    /// predict/data/ellipsoid.json
    #[arg(long, value_name = "FILE")]
    pub write_config: Option<PathBuf>,
    /// Say how much memory a prediction at this many points takes
    #[arg(long, value_name = "N")]
    pub points: Option<u64>,
    #[command(flatten)]
    pub sizes: Sizes,
    /// Print what lets a shell complete the options, and stop: bash, zsh, fish, elvish or powershell
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<clap_complete::Shell>,
}

/// What the memory depends on besides the network.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Sizes {
    /// Anchor points per domain
    #[arg(long, value_name = "N", default_value_t = 2048, requires = "points")]
    pub anchors: u64,
    /// Supernodes of the geometry
    #[arg(long, value_name = "N", default_value_t = 2048, requires = "points")]
    pub supernodes: u64,
    /// Points predicted at once
    #[arg(long, value_name = "N", default_value_t = 16_384, requires = "points")]
    pub chunk: u64,
    /// f32, f16 or bf16
    #[arg(long, default_value = "f32", value_parser = dtype, requires = "points")]
    pub dtype: DType,
}

fn square_banks(text: &str) -> Result<SquareBanks, String> {
    match text {
        "plain" => Ok(SquareBanks::Plain),
        "transposed" => Ok(SquareBanks::Transposed),
        _ => Err("expected plain or transposed".to_string()),
    }
}

fn dtype(text: &str) -> Result<DType, String> {
    match text.parse() {
        Ok(dtype @ (DType::F32 | DType::F16 | DType::BF16)) => Ok(dtype),
        _ => Err("expected f32, f16 or bf16".to_string()),
    }
}
