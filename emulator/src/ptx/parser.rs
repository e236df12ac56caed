//! From tokens to kernels: names become numbers, labels become places.

use std::collections::HashMap;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::lexer::{Token, tokens};
use super::syntax::{Guard, Instruction, Kernel, Module, Operand, Parameter, Register, SpecialRegister, Width};

/// The kernels of a PTX file. What the interpreter has no notion of (functions, global variables, local memory) is an
/// error that names the line.
pub(super) fn parse(text: &str) -> Result<Module> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, at: 0, shared: None };
    let parsed = parser.module();
    parsed.with_context(|| format!("line {}", parser.line()))
}

struct Parser<'a> {
    tokens: &'a [(Token<'a>, u32)],
    at: usize,
    /// The name of dynamic shared memory.
    shared: Option<&'a str>,
}

/// What names inside a kernel stand for.
#[derive(Default)]
struct Names<'a> {
    registers: Vec<Width>,
    /// Declared registers by name, innermost scope last.
    scopes: Vec<HashMap<String, Register>>,
    /// Where parameters lie.
    parameters: HashMap<&'a str, u32>,
    labels: HashMap<&'a str, u32>,
}

impl<'a> Parser<'a> {
    fn line(&self) -> u32 {
        let behind = self.tokens.get(self.at.saturating_sub(1)).or(self.tokens.last());
        behind.map_or(0, |token| token.1)
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|token| token.0)
    }

    fn next(&mut self) -> Result<Token<'a>> {
        let token = self.peek().context("the text ends too early")?;
        self.at += 1;
        Ok(token)
    }

    /// Takes the mark if it comes next.
    fn take(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(Token::Mark(mark));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: char) -> Result<()> {
        let token = self.next()?;
        ensure!(token == Token::Mark(mark), "expected `{mark}`, found {token:?}");
        Ok(())
    }

    fn word(&mut self) -> Result<&'a str> {
        match self.next()? {
            Token::Word(word) => Ok(word),
            token => bail!("expected a word, found {token:?}"),
        }
    }

    fn number(&mut self) -> Result<u32> {
        let word = self.word()?;
        word.parse().with_context(|| format!("expected a number, found `{word}`"))
    }

    fn module(&mut self) -> Result<Module> {
        let mut kernels = Vec::new();
        while self.peek().is_some() {
            match self.word()? {
                ".version" | ".address_size" => {
                    self.word()?;
                }
                ".target" => {
                    self.word()?;
                    while self.take(',') {
                        self.word()?;
                    }
                }
                ".visible" | ".weak" => {}
                ".extern" => self.dynamic_shared_memory()?,
                ".entry" => kernels.push(self.kernel()?),
                other => bail!("`{other}` is not interpreted"),
            }
        }
        Ok(Module { kernels })
    }

    /// `.shared .align 1024 .b8 name[];`
    fn dynamic_shared_memory(&mut self) -> Result<()> {
        const MOST_ALIGNED: u32 = 1024;
        for expected in [".shared", ".align"] {
            let word = self.word()?;
            ensure!(word == expected, "expected dynamic shared memory, found `{word}`");
        }
        let alignment = self.number()?;
        ensure!(alignment <= MOST_ALIGNED, "shared memory is aligned to {MOST_ALIGNED} bytes, not to {alignment}");
        let (kind, name) = (self.word()?, self.word()?);
        ensure!(kind == ".b8", "dynamic shared memory of type `{kind}`");
        for mark in ['[', ']', ';'] {
            self.expect(mark)?;
        }
        self.shared = Some(name);
        Ok(())
    }

    fn kernel(&mut self) -> Result<Kernel> {
        let name = self.word()?.to_string();
        let mut names = Names { scopes: vec![HashMap::new()], ..Names::default() };
        let parameters = self.parameters()?;
        for parameter in &parameters {
            names.parameters.insert(parameter.0, parameter.1.offset);
        }
        let mut most_threads = None;
        while !self.take('{') {
            match self.word()? {
                ".maxntid" => most_threads = Some(self.extent()?),
                ".minnctapersm" => {
                    self.number()?;
                }
                other => bail!("`{other}` in front of a kernel is not interpreted"),
            }
        }
        names.labels = self.labels();
        let mut instructions = Vec::new();
        let mut depth = 1;
        while depth > 0 {
            if self.take('{') {
                names.scopes.push(HashMap::new());
                depth += 1;
            } else if self.take('}') {
                names.scopes.pop();
                depth -= 1;
            } else {
                self.statement(&mut names, &mut instructions)?;
            }
        }
        let parameters = parameters.into_iter().map(|(_, parameter)| parameter).collect();
        Ok(Kernel { name, parameters, most_threads, registers: names.registers, instructions })
    }

    /// `(.param .align 8 .b8 name[120], .param .u64 other)`
    fn parameters(&mut self) -> Result<Vec<(&'a str, Parameter)>> {
        let mut parameters = Vec::new();
        let mut end = 0u32;
        self.expect('(')?;
        while !self.take(')') {
            let word = self.word()?;
            ensure!(word == ".param", "expected a parameter, found `{word}`");
            let mut kind = self.word()?;
            let mut alignment = None;
            if kind == ".align" {
                alignment = Some(self.number()?);
                kind = self.word()?;
            }
            let element = bytes_of(kind).with_context(|| format!("a parameter of type `{kind}`"))?;
            let name = self.word()?;
            let mut bytes = element;
            if self.take('[') {
                bytes = element.checked_mul(self.number()?).context("a parameter that is too large")?;
                self.expect(']')?;
            }
            let alignment = alignment.unwrap_or(element);
            ensure!(alignment.is_power_of_two(), "an alignment of {alignment}");
            let offset = end.next_multiple_of(alignment);
            end = offset.checked_add(bytes).context("parameters that are too large")?;
            parameters.push((name, Parameter { offset, bytes }));
            self.take(',');
        }
        Ok(parameters)
    }

    /// `512, 1, 1`
    fn extent(&mut self) -> Result<u32> {
        let mut threads = self.number()?;
        while self.take(',') {
            threads = threads.checked_mul(self.number()?).context("too many threads")?;
        }
        Ok(threads)
    }

    /// Every label of the body that begins here, with the number of the instruction behind it.
    fn labels(&self) -> HashMap<&'a str, u32> {
        let mut labels = HashMap::new();
        let (mut depth, mut instructions, mut begins) = (1, 0, true);
        for window in self.tokens[self.at..].windows(2) {
            match (window[0].0, window[1].0) {
                (Token::Mark('{'), _) if begins => depth += 1,
                (Token::Mark('}'), _) if begins => depth -= 1,
                (Token::Word(name), Token::Mark(':')) if begins => {
                    labels.insert(name, instructions);
                }
                (Token::Mark(':' | ';'), _) => begins = true,
                (Token::Word(word), _) if begins => {
                    instructions += u32::from(!word.starts_with('.'));
                    begins = false;
                }
                (Token::Mark('@'), _) if begins => {
                    instructions += 1;
                    begins = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        labels
    }

    fn statement(&mut self, names: &mut Names<'a>, instructions: &mut Vec<Instruction>) -> Result<()> {
        if self.take('@') {
            let negated = self.take('!');
            let predicate = names.register(self.word()?)?;
            ensure!(names.registers[predicate] == Width::Predicate, "the guard is no predicate");
            let opcode = self.word()?;
            instructions.push(self.instruction(names, opcode, Some(Guard { predicate, negated }))?);
            return Ok(());
        }
        match self.word()? {
            ".reg" => self.registers(names),
            ".pragma" => {
                self.next()?;
                self.expect(';')
            }
            directive if directive.starts_with('.') => bail!("`{directive}` is not interpreted"),
            _ if self.take(':') => Ok(()),
            opcode => {
                instructions.push(self.instruction(names, opcode, None)?);
                Ok(())
            }
        }
    }

    /// `.b32 %r<59>;` or `.pred ended, other;`
    fn registers(&mut self, names: &mut Names<'a>) -> Result<()> {
        let kind = self.word()?;
        let width = match kind {
            ".pred" => Width::Predicate,
            ".b16" | ".u16" | ".s16" | ".f16" => Width::Bits16,
            ".b32" | ".u32" | ".s32" | ".f32" => Width::Bits32,
            ".b64" | ".u64" | ".s64" | ".f64" => Width::Bits64,
            _ => bail!("registers of type `{kind}`"),
        };
        loop {
            let name = self.word()?;
            if self.take('<') {
                let count = self.number()?;
                self.expect('>')?;
                for number in 0..count {
                    names.declare(format!("{name}{number}"), width);
                }
            } else {
                names.declare(name.to_string(), width);
            }
            if !self.take(',') {
                return self.expect(';');
            }
        }
    }

    fn instruction(&mut self, names: &Names<'a>, opcode: &str, guard: Option<Guard>) -> Result<Instruction> {
        let line = self.line();
        let mut operands = Vec::new();
        while !self.take(';') {
            operands.push(self.operand(names)?);
            if self.peek() != Some(Token::Mark(';')) {
                self.expect(',')?;
            }
        }
        Ok(Instruction { line, guard, opcode: opcode.to_string(), operands })
    }

    fn operand(&mut self, names: &Names<'a>) -> Result<Operand> {
        if self.take('{') {
            return Ok(Operand::Vector(self.vector(names)?));
        }
        if self.take('[') {
            let base = Box::new(self.scalar(names)?);
            let offset = if self.take('+') { self.offset()? } else { 0 };
            if self.take(',') {
                self.expect('{')?;
                let coordinates = self.vector(names)?;
                self.expect(']')?;
                return Ok(Operand::Tensor(base, offset, coordinates));
            }
            self.expect(']')?;
            return Ok(Operand::Address(base, offset));
        }
        let scalar = self.scalar(names)?;
        if let Operand::Register(first) = scalar
            && self.take('|')
        {
            return Ok(Operand::Pair(first, names.register(self.word()?)?));
        }
        Ok(scalar)
    }

    /// Behind the opening brace.
    fn vector(&mut self, names: &Names<'a>) -> Result<Vec<Operand>> {
        let mut elements = Vec::new();
        while !self.take('}') {
            elements.push(self.scalar(names)?);
            self.take(',');
        }
        Ok(elements)
    }

    /// Behind the plus of an address.
    fn offset(&mut self) -> Result<i32> {
        let negative = self.take('-');
        let offset = self.number()?;
        let offset = i64::from(offset) * if negative { -1 } else { 1 };
        i32::try_from(offset).context("an offset beyond 32 bits")
    }

    fn scalar(&mut self, names: &Names<'a>) -> Result<Operand> {
        if self.take('-') {
            let word = self.word()?;
            let number = integer(word).with_context(|| format!("a number behind `-`, not `{word}`"))?;
            return Ok(Operand::Integer(number.wrapping_neg()));
        }
        let word = self.word()?;
        if let Some(bits) = word.strip_prefix("0f") {
            return Ok(Operand::Float(u32::from_str_radix(bits, 16)?));
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(Operand::Integer(integer(word).with_context(|| format!("a number, not `{word}`"))?));
        }
        if word == "_" {
            return Ok(Operand::Nothing);
        }
        let special = SpecialRegister::named(word).map(Operand::Special);
        let parameter = || names.parameters.get(word).map(|&offset| Operand::Parameter(offset));
        let label = || names.labels.get(word).map(|&instruction| Operand::Label(instruction));
        let shared = || (self.shared == Some(word)).then_some(Operand::SharedMemory);
        match special.or_else(parameter).or_else(label).or_else(shared) {
            Some(operand) => Ok(operand),
            None => names.register(word).map(Operand::Register),
        }
    }
}

impl Names<'_> {
    fn declare(&mut self, name: String, width: Width) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, self.registers.len());
        }
        self.registers.push(width);
    }

    fn register(&self, name: &str) -> Result<Register> {
        let found = self.scopes.iter().rev().find_map(|scope| scope.get(name));
        found.copied().ok_or_else(|| anyhow!("`{name}` is not declared"))
    }
}

/// A decimal or hexadecimal number of up to 64 bits, perhaps marked as unsigned.
fn integer(word: &str) -> Option<i64> {
    let digits = word.strip_suffix('U').unwrap_or(word);
    let value = match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    value.ok().map(|value| value as i64)
}

fn bytes_of(kind: &str) -> Option<u32> {
    Some(match kind {
        ".b8" | ".u8" | ".s8" => 1,
        ".b16" | ".u16" | ".s16" | ".f16" => 2,
        ".b32" | ".u32" | ".s32" | ".f32" => 4,
        ".b64" | ".u64" | ".s64" | ".f64" => 8,
        _ => return None,
    })
}
