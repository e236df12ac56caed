//! How a plan prints itself: who attends to whom, sizes, density.

use std::collections::HashMap;
use std::fmt;

use super::{AttentionPlan, AttentionWindow};

impl fmt::Display for AttentionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (groups, patterns) = (self.tokens().len(), self.patterns().len());
        write!(f, "attention plan: {} input tokens in {groups} groups, {patterns} patterns", self.len())?;
        if let (Ok(pairs), Ok(density)) = (self.visible_pairs(), self.density()) {
            write!(f, ", {pairs} visible pairs ({:.1} % of all)", 100.0 * density)?;
        }
        let sizes: HashMap<&str, Option<usize>> =
            self.tokens().iter().map(|token| (token.name.as_str(), token.size)).collect();
        let size = |name: &str| match sizes.get(name) {
            Some(Some(size)) => format!("{name} [{size}]"),
            _ => format!("{name} [cached]"),
        };
        let list = |names: &[String]| names.iter().map(|name| size(name)).collect::<Vec<_>>().join(" + ");
        let queries: Vec<String> = self.patterns().iter().map(|pattern| list(&pattern.query_tokens)).collect();
        let width = queries.iter().map(|text| text.chars().count()).max().unwrap_or(0);
        for (queries, pattern) in queries.iter().zip(self.patterns()) {
            write!(f, "\n  {queries:<width$}  ->  {}", list(&pattern.key_value_tokens))?;
            let AttentionWindow { left, right } = pattern.window;
            match (left, right) {
                (None, None) => {}
                (None, Some(0)) => write!(f, ", causal")?,
                _ => {
                    let far = |side: Option<usize>| side.map_or("all".to_string(), |places| places.to_string());
                    write!(f, ", window of {} before and {} after", far(left), far(right))?;
                }
            }
        }
        Ok(())
    }
}
