//! Which known name a misspelt one was probably meant to be.
//!
//! A name is near if it differs, letter case aside, in one character and one more for every four it has.

/// The nearest of the known names, if any is near enough to be suggested.
pub(crate) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let allowed = 1 + name.chars().count() / 4;
    known
        .map(|candidate| (distance(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two names (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (done, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = done + 1;
        for (index, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[index + 1];
            row[index + 1] = replaced.min(diagonal + 1).min(row[index] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_near_and_another_word_is_not() {
        let known = || ["certificate", "bind", "path"].into_iter();
        assert_eq!(nearest("certifcate", known()), Some("certificate"));
        assert_eq!(nearest("Bind", known()), Some("bind"));
        assert_eq!(nearest("pth", known()), Some("path"));
        assert_eq!(nearest("host", known()), None);
        assert_eq!(nearest("", known()), None);
    }
}
