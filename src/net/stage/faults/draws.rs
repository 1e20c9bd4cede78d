//! Random numbers of a fault: a function of the seed, the connection, the way and the fault, so
//! that the same seed gives the same faults whatever the timing. Must never keep a state: a draw
//! depends on nothing that was drawn before.

use std::f64::consts::TAU;

use crate::net::ledger::Way;

/// The draws of one fault on one way of one connection. Each is asked for by a number: a byte's
/// offset, or that of an event.
#[derive(Clone, Copy, Debug)]
pub struct Draws(u64);

/// A number whose bits all depend on all bits of another one: the finaliser of splitmix64 (Steele,
/// Lea and Flood, 2014).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl Draws {
    /// The draws of a fault by its number. `way` is None for what concerns the whole connection.
    #[must_use]
    pub fn new(seed: u64, connection: u64, way: Option<Way>, fault: u64) -> Self {
        let way = way.map_or(0, |way| 1 + way as u64);
        let parts = [seed, connection, way, fault];
        Self(parts.iter().fold(0, |key, &part| {
            mix(key.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ mix(part.wrapping_add(1)))
        }))
    }

    /// 64 random bits.
    #[must_use]
    pub fn bits(self, at: u64) -> u64 {
        mix(self.0.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// A number from 0 to 1, without 1.
    #[must_use]
    pub fn unit(self, at: u64) -> f64 {
        (self.bits(at) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with this probability.
    #[must_use]
    pub fn chance(self, at: u64, probability: f64) -> bool {
        self.unit(at) < probability
    }

    /// A number from -1 to 1.
    #[must_use]
    pub fn symmetric(self, at: u64) -> f64 {
        self.unit(at) * 2.0 - 1.0
    }

    /// A number of the standard normal distribution, by the method of Box and Muller.
    #[must_use]
    pub fn normal(self, at: u64) -> f64 {
        let other = Self(mix(self.0 ^ 0x6a09_e667_f3bc_c909));
        let radius = (-2.0 * (1.0 - self.unit(at)).ln()).sqrt();
        radius * (TAU * other.unit(at)).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_each_of_its_parts_and_on_nothing_else() {
        let base = Draws::new(1, 2, Some(Way::Up), 3);
        assert_eq!(base.bits(7), Draws::new(1, 2, Some(Way::Up), 3).bits(7));
        let others = [
            Draws::new(2, 2, Some(Way::Up), 3),
            Draws::new(1, 3, Some(Way::Up), 3),
            Draws::new(1, 2, Some(Way::Down), 3),
            Draws::new(1, 2, None, 3),
            Draws::new(1, 2, Some(Way::Up), 4),
        ];
        assert!(others.iter().all(|other| other.bits(7) != base.bits(7)));
        assert_ne!(base.bits(7), base.bits(8));
    }

    #[test]
    fn draws_have_the_distributions_that_they_claim() {
        let draws = Draws::new(42, 1, None, 0);
        let count = 100_000;
        let mean = |of: &dyn Fn(u64) -> f64| (0..count).map(of).sum::<f64>() / count as f64;
        assert!((mean(&|at| draws.unit(at)) - 0.5).abs() < 0.01);
        assert!(mean(&|at| draws.symmetric(at)).abs() < 0.01);
        assert!(mean(&|at| draws.normal(at)).abs() < 0.02);
        assert!((mean(&|at| draws.normal(at).powi(2)) - 1.0).abs() < 0.03);
        assert!((mean(&|at| f64::from(draws.chance(at, 0.25))) - 0.25).abs() < 0.01);
        assert!(!draws.chance(3, 0.0) && draws.chance(3, 1.0));
    }
}
