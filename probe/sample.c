/* Poisson sampling by bytes, in integers: the target's floating point state
 * is not ours to touch. */
#include "probe.h"

#define LN2 0xb17217f7d1cf79abull /* ln 2 * 2^64 */

i64 sample_interval(u64 *rng, u64 mean) {
  if (mean == 0) return INT64_MAX / 2;
  /* xorshift64*, Vigna, "An experimental exploration of Marsaglia's xorshift
   * generators, scrambled", 2016. */
  u64 x = *rng;
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  *rng = x;
  x *= 0x2545f4914f6cdd1dull;
  if (x == 0) x = 1;

  /* -log2(x / 2^64), 32 fraction bits. The fraction comes bit by bit from
   * squaring the mantissa: exact enough that the mean has no bias, and still
   * cheaper than the stack walk that follows. */
  int zeros = __builtin_clzll(x);
  u64 m = x << zeros; /* in [1, 2), 63 fraction bits */
  u64 fraction = 0;
  for (int i = 0; i < 32; i++) {
    m = mulhi(m, m); /* in [1, 4), 62 fraction bits */
    fraction = fraction << 1 | m >> 63;
    if (!(m >> 63)) m <<= 1;
  }
  u64 bits = ((u64)(zeros + 1) << 32) - fraction;
  return (i64)(((u128)mulhi(bits, LN2) * mean) >> 32);
}

u64 sample_weight(u64 size, u64 mean) {
  u64 s = size + 1;
  if (mean == 0 || s / 32 >= mean) return WEIGHT_ONE; /* exp(-32) is nothing */

  /* y = s / mean / 64, below one half; all fractions have 64 bits. */
  u64 y = divide(s >> 6, s << 58, mean);
  /* 1 - exp(-y) = y (1 - y/2 (1 - y/3 (1 - ...))) */
  u64 p = ~0ull;
  for (u64 k = 9; k >= 2; k--) p = ~(mulhi(y, p) / k);
  p = mulhi(y, p);
  /* Six doublings of the exponent: 1 - (1-p)^2 = p + p (1-p). */
  for (int i = 0; i < 6; i++) p += mulhi(p, -p);
  if (p <= WEIGHT_ONE) return ~0ull >> 8;
  return divide(WEIGHT_ONE, 0, p);
}
