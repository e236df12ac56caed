//! Where in a checkpoint the weights are, and what stands in the place of weights.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::models::ab_upt::{Checkpoint, TensorFile};

use crate::checkpoints::{config, load, prediction, stored, weights};
use crate::files::{repacked, tensor_pickle};
use crate::support::refusal::refused;

/// A text in a pickle.
fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// The objects of a pickle, in a dictionary under names of their own.
fn dictionary(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let entries = entries.iter().map(|(name, object)| [text(name), object.to_vec(), b"s".to_vec()].concat());
    [b"}".to_vec(), entries.collect::<Vec<_>>().concat()].concat()
}

/// `bare.pt` with its weights moved to where `place` puts them.
fn moved(place: impl Fn(&[u8]) -> Vec<u8>) -> Result<Vec<u8>> {
    repacked(&stored("bare.pt"), |name, content| {
        let Some(pickle) = content.strip_prefix(b"\x80\x02").filter(|_| name.ends_with("data.pkl")) else {
            return Some(content);
        };
        let weights = pickle.strip_suffix(b".").expect("a pickle ends with a dot");
        Some([b"\x80\x02".as_slice(), &place(weights), b"."].concat())
    })
}

/// A pickle in the place of that of `bare.pt`.
fn replaced(pickle: &[u8]) -> Result<Vec<u8>> {
    repacked(&stored("bare.pt"), |name, content| {
        Some(if name.ends_with("data.pkl") { pickle.to_vec() } else { content })
    })
}

#[test]
fn weights_are_found_under_any_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.pt");
    let want = prediction(&load(&stored("weights.safetensors"))?)?;
    let names =
        ["state_dict", "model", "model_state_dict", "net", "network", "ema_state_dict", "state_dict_ema", "averaged"];
    for name in names {
        std::fs::write(&path, moved(|weights| dictionary(&[("epoch", b"K\x05"), (name, weights)]))?)?;
        assert_eq!(Checkpoint::open(&path)?.weights_key(), Some(name));
        crate::same(name, &prediction(&load(&path)?)?, &want);
    }
    let nested = moved(|weights| dictionary(&[("model", &dictionary(&[("state_dict", weights)]))]))?;
    std::fs::write(&path, nested)?;
    assert_eq!(Checkpoint::open(&path)?.weights_key(), Some("model.state_dict"));
    crate::same("nested", &prediction(&load(&path)?)?, &want);
    assert_eq!(Checkpoint::open(stored("bare.pt"))?.weights_key(), None);
    Ok(())
}

#[test]
fn of_several_sets_of_weights_the_caller_chooses_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.pt");
    std::fs::write(&path, moved(|weights| dictionary(&[("model", weights), ("ema", weights)]))?)?;
    refused("two sets", Checkpoint::open(&path), &["several sets of weights", "'model', 'ema'", "weights-key"]);
    let chosen = Checkpoint::open_key(&path, "ema")?;
    assert_eq!(chosen.weights_key(), Some("ema"));
    let want = prediction(&load(&stored("weights.safetensors"))?)?;
    crate::same("ema", &prediction(&chosen.load(&config(), DType::F32, &Device::Cpu)?)?, &want);
    refused("a wrong key", Checkpoint::open_key(&path, "net"), &["no weights under 'net'", "'model', 'ema'"]);
    let safetensors = Checkpoint::open_key(stored("weights.safetensors"), "ema");
    refused("a key for safetensors", safetensors, &["'ema'", "torch.save"]);
    // Tensors that are no network do not stand in the way.
    let other = tensor_pickle(&[1]);
    let other = &other[2..other.len() - 1];
    std::fs::write(&path, moved(|weights| dictionary(&[("model", weights), ("statistics", other)]))?)?;
    assert_eq!(Checkpoint::open(&path)?.weights_key(), Some("model"));
    Ok(())
}

#[test]
fn averaged_weights_say_how_often() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("averaged.safetensors");
    let mut averaged: std::collections::HashMap<_, _> =
        weights()?.into_iter().map(|(name, tensor)| (format!("module.{name}"), tensor)).collect();
    averaged.insert("n_averaged".to_string(), Tensor::new(7i64, &Device::Cpu)?);
    candle_core::safetensors::save(&averaged, &path)?;
    let want = prediction(&load(&stored("weights.safetensors"))?)?;
    crate::same("averaged", &prediction(&load(&path)?)?, &want);
    Ok(())
}

#[test]
fn what_stands_in_the_place_of_weights_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.pt");
    let script = repacked(&stored("bare.pt"), |name, content| {
        // An archive of torch.jit.save has this entry beside the others.
        Some(if name.ends_with("byteorder") { b"code".to_vec() } else { content })
    })?;
    let script = {
        let mut archive = zip::ZipWriter::new_append(std::io::Cursor::new(script))?;
        archive.start_file(
            "bare/constants.pkl",
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored),
        )?;
        archive.finish()?.into_inner()
    };
    let module = b"cmynetworks\nNetwork\n)\x81";
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    let table: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec(), &["git lfs pull"]),
        ("HTML", b"\n<!DOCTYPE html><html><body>404</body></html>".to_vec(), &["a page of a web server"]),
        ("tar", tar, &["a tar archive", ".mdlus"]),
        ("gzip", b"\x1f\x8b\x08 and so on".to_vec(), &["gzip"]),
        ("an old pickle", b"\x80\x02\x8a\nl\xfc".to_vec(), &["a bare pickle", "before version 1.6"]),
        ("TorchScript", script, &["TorchScript", "state_dict()"]),
        (
            "a whole module",
            replaced(&[b"\x80\x02", &module[..], b"."].concat())?,
            &["a whole object of class 'Network'"],
        ),
        (
            "a whole module in a dictionary",
            replaced(&[b"\x80\x02", &dictionary(&[("epoch", b"K\x05"), ("model", module)])[..], b"."].concat())?,
            &["no tensors, but under 'model' a whole object of class 'Network'", "state_dict()"],
        ),
    ];
    for (case, bytes, words) in table {
        std::fs::write(&path, bytes)?;
        refused(case, load(&path), &[words, &["model.pt"]].concat());
    }
    Ok(())
}

#[test]
fn truncated_safetensors_say_how_many_bytes_are_missing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("weights.safetensors");
    let bytes = std::fs::read(stored("weights.safetensors"))?;
    // Up to all but a thousand bytes behind the header.
    for missing in [1, 1000, bytes.len() - 15_056] {
        std::fs::write(&path, &bytes[..bytes.len() - missing])?;
        refused("truncated", load(&path), &[&format!("it is truncated: {missing} bytes are missing")]);
    }
    std::fs::write(&path, &bytes[..500])?;
    refused("in the header", load(&path), &["it is truncated: ", " bytes are missing"]);
    Ok(())
}

#[test]
fn dtypes_that_are_not_read_are_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.pt");
    let function = b"_rebuild_tensor_v2";
    let mut pickle = tensor_pickle(&[1]);
    let at = pickle.windows(function.len()).position(|window| window == function).expect("the function");
    pickle[at + function.len() - 1] = b'3';
    // The hooks are followed by a dtype.
    let end = pickle.len() - b"tRs.".len();
    pickle.splice(end.., b"ctorch\nfloat8_e5m2\ntRs.".to_vec());
    std::fs::write(&path, replaced(&pickle)?)?;
    refused("float8", load(&path), &["tensor 'w'", "its dtype is float8_e5m2", "torch.bfloat16"]);
    let header = br#"{"a":{"dtype":"F8_E5M2","shape":[2],"data_offsets":[0,2]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 2]].concat();
    // Under another name: one that ends in .pt promises a file of PyTorch, and is told what that would be.
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, bytes)?;
    refused("float8", load(&path), &["tensor 'a' has dtype F8_E5M2", "BF16"]);
    Ok(())
}

#[test]
fn tensors_that_repeat_their_numbers_are_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("points.pt");
    std::fs::write(&path, replaced(&tensor_pickle(&[1000, 3]))?)?;
    let file = TensorFile::open(&path)?;
    assert_eq!(file.names().collect::<Vec<_>>(), ["w"]);
    let values = file.read("w")?.to_vec2::<f32>()?;
    assert_eq!((values.len(), values[0].len()), (1000, 3));
    assert!(values.iter().flatten().all(|value| *value == values[0][0]));
    Ok(())
}

#[test]
fn small_files_do_not_unfold_to_large_tensors() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("points.pt");
    let refusal = |pickle: &[u8]| {
        std::fs::write(&path, replaced(pickle)?)?;
        Ok::<_, anyhow::Error>(TensorFile::open(&path).map(|_| ()))
    };
    refused("one tensor", refusal(&tensor_pickle(&[1 << 24, 2]))?, &["'w'", "reaches beyond its storage"]);
    // Each is small enough, all of them are not.
    let pickle = tensor_pickle(&[1 << 22, 3]);
    let tensor = &pickle[b"\x80\x02}".len() + text("w").len()..pickle.len() - b"s.".len()];
    let names: Vec<String> = (0..3).map(|at| format!("w{at}")).collect();
    let several: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), tensor)).collect();
    refusal(&[b"\x80\x02".to_vec(), dictionary(&several[..1]), b".".to_vec()].concat())??;
    let all = refusal(&[b"\x80\x02".to_vec(), dictionary(&several), b".".to_vec()].concat())?;
    refused("several tensors", all, &["would unfold to more than"]);
    Ok(())
}

#[test]
fn a_single_tensor_has_no_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("points.pt");
    let pickle = tensor_pickle(&[2, 3]);
    let name = text("w");
    let tensor = &pickle[b"\x80\x02}".len() + name.len()..pickle.len() - b"s.".len()];
    std::fs::write(&path, replaced(&[b"\x80\x02", tensor, b"."].concat())?)?;
    let file = TensorFile::open(&path)?;
    assert_eq!(file.names().collect::<Vec<_>>(), [""]);
    assert_eq!(file.read("")?.dims(), [2, 3]);
    refused("no network", load(&path), &["a single tensor, which is no network"]);
    refused("no such tensor", file.read("w"), &["w"]);
    Ok(())
}
