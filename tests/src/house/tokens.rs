//! The tokens of a Rust file that imports need: without comments, string literals and code for tests.

/// A part of a Rust file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    /// `::`
    Path,
    Sign(char),
}

impl Token {
    pub(super) fn is(&self, sign: char) -> bool {
        *self == Self::Sign(sign)
    }

    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            Self::Path | Self::Sign(_) => None,
        }
    }
}

/// Cuts a text into words and signs.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut tokens, mut i) = (vec![], 0);
    while i < chars.len() {
        let c = at(i);
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            while i < chars.len() && !(at(i) == '*' && at(i + 1) == '/') {
                i += 1;
            }
            i += 2;
        } else if c.is_alphanumeric() || c == '_' {
            let start = i;
            while at(i).is_alphanumeric() || at(i) == '_' {
                i += 1;
            }
            let word: String = chars.get(start..i).unwrap_or_default().iter().collect();
            let raw = matches!(word.as_str(), "r" | "br") && matches!(at(i), '"' | '#');
            match raw.then(|| after_raw(&chars, i)).flatten() {
                Some(after) => i = after,
                None => tokens.push(Token::Word(word)),
            }
        } else if c == '"' {
            i += 1;
            while i < chars.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if c == '\'' && at(i + 1) == '\\' {
            i += 3;
            while i < chars.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
        } else if c == '\'' && at(i + 2) == '\'' {
            i += 3;
        } else if c == ':' && at(i + 1) == ':' {
            tokens.push(Token::Path);
            i += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(Token::Sign(c));
            }
            i += 1;
        }
    }
    tokens
}

/// The place behind a raw text whose first `#` or `"` is at `i`; `None`: it is a raw name.
fn after_raw(chars: &[char], i: usize) -> Option<usize> {
    let hashes = chars.iter().skip(i).take_while(|c| **c == '#').count();
    if chars.get(i + hashes) != Some(&'"') {
        return None;
    }
    let mut at = i + hashes + 1;
    while at < chars.len() {
        let closing = chars.get(at) == Some(&'"')
            && chars.iter().skip(at + 1).take(hashes).filter(|c| **c == '#').count() == hashes;
        at += 1;
        if closing {
            return Some(at + hashes);
        }
    }
    Some(at)
}

/// Leaves out what is compiled for tests only; gives the names of files that are.
pub(super) fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let only_tests = self::tokens("#[cfg(test)]");
    let (mut kept, mut files, mut i) = (vec![], vec![], 0);
    while i < tokens.len() {
        let rest = tokens.get(i..).unwrap_or_default();
        if rest.starts_with(&only_tests) {
            let item = rest.get(only_tests.len()..).unwrap_or_default();
            let end = item_end(item);
            let item = item.get(..end).unwrap_or_default();
            if let [.., Token::Word(module), Token::Word(name), Token::Sign(';')] = item
                && module == "mod"
            {
                files.push(name.clone());
            }
            i += only_tests.len() + end;
        } else {
            kept.extend(rest.first().cloned());
            i += 1;
        }
    }
    (kept, files)
}

/// How many tokens the item takes that begins here.
fn item_end(tokens: &[Token]) -> usize {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign('{' | '(' | '[') => depth += 1,
            Token::Sign('}' | ')' | ']') => {
                depth = depth.saturating_sub(1);
                let attribute = token.is(']');
                if depth == 0 && token.is('}') && !attribute {
                    // `use a::{b};` goes on.
                    return if tokens.get(i + 1).is_some_and(|t| t.is(';')) {
                        i + 2
                    } else {
                        i + 1
                    };
                }
            }
            Token::Sign(';') if depth == 0 => return i + 1,
            _ => {}
        }
    }
    tokens.len()
}
