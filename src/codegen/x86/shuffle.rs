//! Instruction selection for lanes in other orders.

use super::codes::both;
use super::isel::Part::{self, Any, Byte, Mask, Tied, Use};
use super::isel::{Place, Selector};
use super::*;
use crate::kir::{Order, Value};
use iced_x86::Code::*;

impl Selector<'_> {
    /// Any lane may be needed for those of the result that matter.
    pub(super) fn shuffle(&mut self, a: Value, b: Value, order: Order) -> VReg {
        let half = std::mem::take(&mut self.half);
        let result = self.shuffle_whole(a, b, order);
        self.half = half;
        result
    }

    fn shuffle_whole(&mut self, a: Value, b: Value, order: Order) -> VReg {
        if let Some((distance, odd)) = order.as_weave().filter(|_| a != b) {
            return self.weave(a, b, distance, odd);
        }
        let one = a == b || order.from_second() == 0;
        match (self.is_wide(), one) {
            (true, true) => {
                let (places, a) = (self.places_of(order.within()), self.whole(a));
                let code = both(EVEX_Vpermps_zmm_k1z_zmm_zmmm512b32);
                self.make(VECTOR, code, [Use(places), a])
            }
            (true, false) => {
                let (a, b) = (self.register(a), self.whole(b));
                let places = self.places_of(order);
                let code = both(EVEX_Vpermi2ps_zmm_k1z_zmm_zmmm512b32);
                self.make(VECTOR, code, [Tied(places), Use(a), b])
            }
            (false, true) => self.within_one(a, order.within()),
            (false, false) => {
                if let Some(byte) = in_pairs(&order) {
                    let (a, b) = (self.register(a), Any(self.place(b)));
                    let code = both(VEX_Vshufps_ymm_ymm_ymmm256_imm8);
                    return self.make(VECTOR, code, [Use(a), b, Byte(byte)]);
                }
                let (within, second) = (order.within(), order.from_second());
                // What comes from the other vector may stay where it is.
                let from = |second: bool| {
                    Order::new(order.lanes(), |i| {
                        let place = u32::from(order.places()[i as usize]);
                        let own = (place >= order.lanes()) == second;
                        if own { u32::from(within.places()[i as usize]) } else { i }
                    })
                };
                let a = self.within_one(a, from(false));
                let b = self.within_one(b, from(true));
                let code = both(VEX_Vblendps_ymm_ymm_ymmm256_imm8);
                self.make(VECTOR, code, [Use(a), Use(b), Byte(second as u8)])
            }
        }
    }

    /// Lanes of one vector of 256 bits.
    fn within_one(&mut self, a: Value, order: Order) -> VReg {
        if order.is_first() {
            return self.register(a);
        }
        if let Some(byte) = in_quarters(&order) {
            let a = Any(self.place(a));
            return self.make(VECTOR, both(VEX_Vpermilps_ymm_ymmm256_imm8), [a, Byte(byte)]);
        }
        let (places, a) = (self.places_of(order), Any(self.place(a)));
        self.make(VECTOR, both(VEX_Vpermps_ymm_ymm_ymmm256), [Use(places), a])
    }

    /// Where lanes come from, in a register.
    fn places_of(&mut self, order: Order) -> VReg {
        self.words(|word| order.places()[word as usize].into())
    }

    /// A step of a transposition.
    fn weave(&mut self, a: Value, b: Value, distance: u32, odd: bool) -> VReg {
        if self.is_wide() {
            return self.weave_wide(a, b, distance, odd);
        }
        let blend = both(VEX_Vblendps_ymm_ymm_ymmm256_imm8);
        match (distance, odd) {
            (1, false) => {
                let (a, b) = (self.register(a), Any(self.place(b)));
                let upwards = self.make(VECTOR, both(VEX_Vmovsldup_ymm_ymmm256), [b]);
                self.make(VECTOR, blend, [Use(a), Use(upwards), Byte(0xaa)])
            }
            (1, true) => {
                let (a, b) = (Any(self.place(a)), Any(self.place(b)));
                let downwards = self.make(VECTOR, both(VEX_Vmovshdup_ymm_ymmm256), [a]);
                self.make(VECTOR, blend, [Use(downwards), b, Byte(0xaa)])
            }
            (2, odd) => {
                let code = match odd {
                    false => VEX_Vunpcklpd_ymm_ymm_ymmm256,
                    true => VEX_Vunpckhpd_ymm_ymm_ymmm256,
                };
                let (a, b) = (self.register(a), Any(self.place(b)));
                self.make(VECTOR, both(code), [Use(a), b])
            }
            (_, odd) => {
                let (a, b) = (self.register(a), Any(self.place(b)));
                let halves = Byte(if odd { 0x31 } else { 0x20 });
                self.make(VECTOR, both(VEX_Vperm2f128_ymm_ymm_ymmm256_imm8), [Use(a), b, halves])
            }
        }
    }

    /// An operand of an instruction that does not broadcast lanes of four bytes.
    fn whole(&mut self, value: Value) -> Part {
        match self.place(value) {
            place @ (Place::Register(_) | Place::Memory { broadcast: false, .. }) => Any(place),
            Place::Constant(_) | Place::Memory { broadcast: true, .. } => Use(self.register(value)),
        }
    }

    /// The same for 512 bits. What stays in its lanes is merged with what moves.
    fn weave_wide(&mut self, a: Value, b: Value, distance: u32, odd: bool) -> VReg {
        // Of `b` the even blocks move up, of `a` the odd ones down.
        let (stays, moves) = if odd { (b, a) } else { (a, b) };
        match distance {
            1 => {
                let mask = self.mask(if odd { 0x5555 } else { 0xaaaa });
                let code = match odd {
                    true => EVEX_Vmovshdup_zmm_k1z_zmmm512,
                    false => EVEX_Vmovsldup_zmm_k1z_zmmm512,
                };
                let (stays, moves) = (self.register(stays), self.whole(moves));
                self.make(VECTOR, both(code), [Tied(stays), moves, Mask(mask, false)])
            }
            2 => {
                let code = match odd {
                    true => EVEX_Vunpckhpd_zmm_k1z_zmm_zmmm512b64,
                    false => EVEX_Vunpcklpd_zmm_k1z_zmm_zmmm512b64,
                };
                let (a, b) = (self.register(a), self.whole(b));
                self.make(VECTOR, both(code), [Use(a), b])
            }
            4 => {
                let mask = self.mask(if odd { 0x0f0f } else { 0xf0f0 });
                let order = Byte(if odd { 0b00_11_00_01 } else { 0b10_00_00_00 });
                let (stays, moves) = (self.register(stays), self.register(moves));
                let code = both(EVEX_Vshuff32x4_zmm_k1z_zmm_zmmm512b32_imm8);
                let parts = [Tied(stays), Use(moves), Use(moves), order, Mask(mask, false)];
                self.make(VECTOR, code, parts)
            }
            _ => {
                let (a, b) = (self.register(a), Any(self.place(b)));
                let halves = Byte(if odd { 0xee } else { 0x44 });
                let code = both(EVEX_Vshuff32x4_zmm_k1z_zmm_zmmm512b32_imm8);
                self.make(VECTOR, code, [Use(a), b, halves])
            }
        }
    }
}

/// The order within every four lanes, if it is the same in both halves of 256 bits.
fn in_quarters(order: &Order) -> Option<u8> {
    let places = order.places();
    let same = (0..4).all(|i| places[i] < 4 && places[i + 4] == places[i] + 4);
    same.then(|| (0..4).map(|i| places[i] << (2 * i)).sum())
}

/// The same with the first two of every four lanes from the first vector, the others from the second.
fn in_pairs(order: &Order) -> Option<u8> {
    let paired = (0..8).all(|i| (order.places()[i] >= 8) == (i % 4 >= 2));
    in_quarters(&order.within()).filter(|_| paired)
}
