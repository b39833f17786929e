//! Kubernetes quantities: `500m`, `1.5Gi`, `2e3`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Whole units (bytes, devices), rounded up as Kubernetes does; `None` for what is no quantity, is negative, or does
/// not fit.
pub fn units(quantity: &Quantity) -> Option<u64> {
    u64::try_from(scaled(&quantity.0, 0)?).ok()
}

/// Thousandths (of a core), rounded up.
pub fn thousandths(quantity: &Quantity) -> Option<u64> {
    u64::try_from(scaled(&quantity.0, 3)?).ok()
}

/// `text` times 10^`digits`, rounded up.
fn scaled(text: &str, digits: i32) -> Option<i128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (binary, decimal) = multiplier(suffix)?;
    let exponent = decimal + digits - i32::try_from(fraction.len()).ok()?;
    let product = mantissa.checked_mul(1_i128.checked_shl(binary)?)?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs());
    if exponent >= 0 {
        product.checked_mul(power?)
    } else {
        // A divisor beyond i128 leaves a fraction of a unit, and fractions round up.
        Some(
            power.map_or(i128::from(product > 0), |divisor| {
                product / divisor + i128::from(product % divisor > 0)
            }),
        )
    }
}

/// Powers of two and of ten that a suffix stands for.
fn multiplier(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        exponent => (0, exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

/// Bytes for people: `3.2 GiB`.
pub fn readable(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.into_iter().find(|(_, shift)| bytes >= 1 << shift);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(name, shift)| {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Option<u64> {
        units(&Quantity(text.into()))
    }

    #[test]
    fn every_suffix_is_read() {
        assert_eq!(bytes("0"), Some(0));
        assert_eq!(bytes("128974848"), Some(128_974_848));
        assert_eq!(bytes("129e6"), Some(129_000_000));
        assert_eq!(bytes("129E6"), Some(129_000_000));
        assert_eq!(bytes("2E"), Some(2_000_000_000_000_000_000));
        assert_eq!(bytes("129M"), Some(129_000_000));
        assert_eq!(bytes("123Mi"), Some(123 << 20));
        assert_eq!(bytes("1Ki"), Some(1024));
        assert_eq!(bytes("1.5Gi"), Some(3 << 29));
        assert_eq!(bytes("+.5Gi"), Some(1 << 29));
        assert_eq!(bytes("7Ei"), Some(7 << 60));
        assert_eq!(bytes("128974848000m"), Some(128_974_848));
        assert_eq!(bytes("1.25e3"), Some(1250));
        assert_eq!(bytes("3."), Some(3));
    }

    #[test]
    fn fractions_round_up() {
        assert_eq!(bytes("1m"), Some(1));
        assert_eq!(bytes("1500m"), Some(2));
        assert_eq!(bytes("1e-40"), Some(1));
        assert_eq!(bytes("1n"), Some(1));
        assert_eq!(thousandths(&Quantity("0.1".into())), Some(100));
        assert_eq!(thousandths(&Quantity("250m".into())), Some(250));
        assert_eq!(thousandths(&Quantity("100u".into())), Some(1));
        assert_eq!(thousandths(&Quantity("2".into())), Some(2000));
        assert_eq!(thousandths(&Quantity("1e-1".into())), Some(100));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", ".", "-1", "1.2.3", "Mi", "1KB", "1e", "1 Gi", "1e99999999999", "99999E", "9e40", "١"]
        {
            assert_eq!(bytes(text), None, "{text:?}");
        }
    }

    #[test]
    fn bytes_are_written_for_people() {
        assert_eq!(readable(0), "0 B");
        assert_eq!(readable(1023), "1023 B");
        assert_eq!(readable(1 << 10), "1.0 KiB");
        assert_eq!(readable(3 << 29), "1.5 GiB");
        assert_eq!(readable(u64::MAX), "16777215.9 TiB");
    }
}
