//! The registers that tiles take: that they fit, and that the table counts them well.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;

use super::table::tuning::{CANDIDATES, Element, REGISTERS, ROWS, Row};
use super::table::{ELEMENTS, recipes};
use super::{path, shape};
use emulator::{Compiler, trial};

pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (element, families) in ELEMENTS {
        let of_element = |row: &&Row| families.iter().any(|&family| row.serves(family, element));
        for row in ROWS.iter().chain(&CANDIDATES).filter(of_element) {
            let name = format!("metal_registers::{}_{}_{}", element.policy(), row.head_dim, shape(row));
            let compiler_of_check = compiler.clone();
            trials.push(trial(&name, compiler, move || {
                check(&compiler_of_check.map_err(anyhow::Error::msg)?, element, row)
            }));
        }
    }
    trials
}

fn check(compiler: &Compiler, element: Element, row: &Row) -> Result<()> {
    let recipe = recipes::mixed_attention(row, element, row.head_dim);
    let defines: Vec<&str> = recipe.defines.iter().map(String::as_str).collect();
    let allocated = compiler.registers(&path(&recipe), recipe.function, &defines, 112)?;
    println!("REG {} {} {:?} counted {} {:?}", element.policy(), row.head_dim, shape(row), row.registers(row.head_dim), allocated);
    ensure!(allocated.spilled == 0, "{allocated:?} of {REGISTERS}");
    Ok(())
}
