//! Pointers and references of Metal code that name no address space.
//!
//! Apple's compiler refuses them; to clang a bare pointer is one to the thread's own memory, so the check of address
//! spaces does not see those that are.

/// Types that are known without a declaration in the file, templates by their names.
const TYPES: [&str; 14] = [
    "half",
    "bfloat",
    "float",
    "int",
    "uint",
    "short",
    "ushort",
    "char",
    "uchar",
    "bool",
    "ulong",
    "vec",
    "simdgroup_matrix",
    "array",
];
const ADDRESS_SPACES: [&str; 4] = ["device", "threadgroup", "constant", "thread"];

/// A word, number or punctuation mark, and its line.
type Token<'a> = (&'a str, usize);

/// The declarations at fault, as `line: type * name`.
pub fn unqualified_pointers(text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let word = |i: usize| tokens.get(i).map_or("", |token| token.0);
    let declared = (1..tokens.len())
        .filter(|&i| matches!(word(i - 1), "struct" | "class" | "typename") && is_word(word(i)))
        .map(word)
        .collect::<Vec<_>>();
    let is_type = |word: &str| {
        let scalar = word.strip_suffix(['2', '3', '4']).unwrap_or(word);
        TYPES.contains(&scalar) || declared.contains(&word)
    };

    let mut found = Vec::new();
    for mark in 1..tokens.len() {
        if !matches!(word(mark), "*" | "&") {
            continue;
        }
        let start = type_start(&tokens, mark - 1);
        let name = mark + 1 + usize::from(word(mark + 1) == "const");
        let ends = matches!(word(name + 1), "=" | "," | ";" | ")" | "[");
        if !is_type(word(start)) || !is_word(word(name)) || !ends {
            continue;
        }
        let specifiers = tokens[..start].iter().rev().take_while(|token| is_word(token.0));
        let behind = tokens[start + 1..mark].iter().filter(|token| is_word(token.0));
        if !specifiers.chain(behind).any(|token| ADDRESS_SPACES.contains(&token.0)) {
            found.push(format!("{}: {} {} {}", tokens[mark].1, word(start), word(mark), word(name)));
        }
    }
    found
}

/// Where the type that ends at `end` begins: in front of its template arguments and trailing qualifiers.
fn type_start(tokens: &[Token<'_>], end: usize) -> usize {
    let mut start = end;
    while start > 0 && (tokens[start].0 == "const" || ADDRESS_SPACES.contains(&tokens[start].0)) {
        start -= 1;
    }
    let mut depth = 0;
    while start > 0 {
        match tokens[start].0 {
            ">" => depth += 1,
            "<" => depth -= 1,
            _ if depth == 0 => break,
            _ => {}
        }
        start -= 1;
    }
    start
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// The text without comments, in words and single punctuation marks; `&&` stays whole.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (line, code) in text.lines().enumerate() {
        let mut rest = code.split("//").next().unwrap_or_default().trim_start();
        while let Some(first) = rest.chars().next() {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let length = match first {
                _ if is_part(first) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
                _ if rest.starts_with("&&") => 2,
                _ => first.len_utf8(),
            };
            tokens.push((&rest[..length], line + 1));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}
