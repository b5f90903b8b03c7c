//! Names in the order in which people count.

use std::cmp::Ordering;

/// Compares names so that `frame2` comes before `frame10`: runs of digits by value, all else byte by
/// byte; names that differ in leading zeros only, by length.
pub(crate) fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    loop {
        let (digits_left, digits_right) = (leading_digits(left), leading_digits(right));
        let order = if digits_left > 0 && digits_right > 0 {
            let (x, y) = (without_zeros(&left[..digits_left]), without_zeros(&right[..digits_right]));
            left = &left[digits_left..];
            right = &right[digits_right..];
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            match (left.split_first(), right.split_first()) {
                (Some((x, rest_left)), Some((y, rest_right))) => {
                    (left, right) = (rest_left, rest_right);
                    x.cmp(y)
                }
                (x, y) => return x.is_some().cmp(&y.is_some()).then(a.len().cmp(&b.len())).then(a.cmp(b)),
            }
        };
        if order.is_ne() {
            return order;
        }
    }
}

fn leading_digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_and_the_rest_is_alphabetical() {
        let sorted = [
            "a",
            "a0",
            "a1",
            "a01",
            "a2",
            "a10",
            "a10b2",
            "a10b12",
            "a99999999999999999999999998",
            "a99999999999999999999999999",
            "b",
            "frame2.png",
            "frame10.png",
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(natural_order(a, b), i.cmp(&j), "{a} against {b}");
            }
        }
    }
}
