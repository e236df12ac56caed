//! Attention to parts of the keys, put together, is attention to all of them.

mod support;

use candle_core::{DType, Device, IndexOp, Result, Tensor, Var};
use candle_mixed_attention::{
    AttentionOptions, AttentionPart, AttentionPattern, AttentionPlan, Backend, KvCache, SimdLevel, TokenSpec,
    mixed_attention_part,
};
use support::compare::{check_close, numbers};

const SHAPE: (usize, usize, usize) = (2, 3, 20);
const QUERIES: usize = 37;

fn random(tokens: usize, dtype: DType) -> Result<Tensor> {
    let (batch, heads, head_dim) = SHAPE;
    Tensor::randn(0f32, 1.5, (batch, heads, tokens, head_dim), &Device::Cpu)?.to_dtype(dtype)
}

fn plan() -> AttentionPlan {
    let tokens = [TokenSpec::new("queries", QUERIES), TokenSpec::cached("keys")];
    AttentionPlan::new(tokens, [AttentionPattern::queries(["queries"]).attend_to(["keys"])]).expect("a valid plan")
}

/// Attention to keys `[start, start + len)`.
fn part(operands: &[Tensor; 3], (start, len): (usize, usize), options: &AttentionOptions) -> Result<AttentionPart> {
    let [queries, keys, values] = operands;
    let cache = KvCache::from_groups([("keys", keys.narrow(2, start, len)?, values.narrow(2, start, len)?)], None)?;
    mixed_attention_part(queries, None, Some(&cache), &plan(), options)
}

/// `log Σ exp` of the scores in f64.
fn log_sum_exp([queries, keys, _]: &[Tensor; 3]) -> Result<Tensor> {
    let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64);
    let scores = (wide(queries)?.matmul(&wide(keys)?.t()?)? / (SHAPE.2 as f64).sqrt())?;
    scores.log_sum_exp(3)
}

fn backends() -> Vec<AttentionOptions> {
    let fused = |level: &SimdLevel| AttentionOptions::default().backend(Backend::Fused).simd(*level);
    let reference = AttentionOptions::default().backend(Backend::Reference);
    SimdLevel::available().iter().map(fused).chain([reference]).collect()
}

#[test]
fn parts_combine_to_the_whole() -> Result<()> {
    // The last has keys enough to be split between threads.
    for keys in [9, 700, 9000] {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let operands = [random(QUERIES, dtype)?, random(keys, dtype)?, random(keys, dtype)?];
            let want = log_sum_exp(&operands)?;
            // An error of a part's log-sum-exp counts as often as outputs are long, and they reach 6, where neighbours in bf16
            // are 2⁻⁵ apart; each part is rounded.
            let tolerance = if dtype == DType::F32 { 2e-5 } else { 8e-2 };
            for options in backends() {
                let whole = part(&operands, (0, keys), &options)?;
                check_close("log-sum-exp", &whole.log_sum_exp, &want, 1e-5).unwrap();
                let cuts = [(0, 3), (3, 0), (3, keys / 2), (3 + keys / 2, keys - keys / 2 - 3)];
                let parts = cuts.map(|cut| part(&operands, cut, &options));
                let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
                let all = AttentionPart::combine(&parts)?;
                check_close("all at once", &all.output, &whole.output, tolerance).unwrap();
                check_close("all at once", &all.log_sum_exp, &want, 1e-5).unwrap();
                // In two steps, in another order.
                let some = AttentionPart::combine(&parts[2..])?;
                let steps = AttentionPart::combine(&[some, parts[1].clone(), parts[0].clone()])?;
                check_close("in steps", &steps.output, &whole.output, tolerance).unwrap();
            }
        }
    }
    Ok(())
}

#[test]
fn no_key_at_all_is_zero() -> Result<()> {
    let operands = [random(QUERIES, DType::F32)?, random(4, DType::F32)?, random(4, DType::F32)?];
    for options in backends() {
        let nothing = part(&operands, (0, 0), &options)?;
        let both = AttentionPart::combine(&[nothing.clone(), nothing])?;
        assert!(numbers(&both.output)?.iter().all(|number| *number == 0.0));
        assert!(numbers(&both.log_sum_exp)?.iter().all(|number| *number == f64::NEG_INFINITY));
    }
    Ok(())
}

#[test]
fn gradients_pass_through_parts() -> Result<()> {
    let queries = Var::from_tensor(&random(QUERIES, DType::F32)?)?;
    let (keys, values) = (random(50, DType::F32)?, random(50, DType::F32)?);
    let operands = [queries.as_tensor().clone(), keys, values];
    let gradient = |parts: &[(usize, usize)]| -> Result<Tensor> {
        let parts: Vec<_> =
            parts.iter().map(|cut| part(&operands, *cut, &AttentionOptions::default())).collect::<Result<_>>()?;
        let gradients = AttentionPart::combine(&parts)?.output.sqr()?.sum_all()?.backward()?;
        Ok(gradients.get(&queries).expect("a gradient").clone())
    };
    check_close("gradient", &gradient(&[(0, 20), (20, 30)])?, &gradient(&[(0, 50)])?, 2e-4).unwrap();
    let fused = AttentionOptions::default().backend(Backend::Fused);
    let refusal = part(&operands, (0, 50), &fused).expect_err("the kernel cannot follow").to_string();
    assert!(refusal.contains("log-sum-exp") && refusal.contains("gradient"), "{refusal}");
    Ok(())
}

#[test]
fn parts_that_do_not_fit_are_refused() -> Result<()> {
    let operands = [random(QUERIES, DType::F32)?, random(5, DType::F32)?, random(5, DType::F32)?];
    let good = part(&operands, (0, 5), &AttentionOptions::default())?;
    let refused = |parts: &[AttentionPart], words: &str| {
        let error = AttentionPart::combine(parts).expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(&[], "at least one");
    let shorter = AttentionPart { output: good.output.i((.., .., ..5))?, ..good.clone() };
    refused(&[good.clone(), shorter], "output of a part");
    let other = AttentionPart { log_sum_exp: good.log_sum_exp.i(0)?, ..good.clone() };
    refused(&[good.clone(), other], "log-sum-exp of a part");
    let half = AttentionPart { output: good.output.to_dtype(DType::F16)?, ..good.clone() };
    refused(&[good, half], "F16");
    Ok(())
}
