/* What harm.cc does with memory: blocks with checksums, and exceptions thrown
 * through frames that own blocks. */
#ifndef HARM_MEMORY_H
#define HARM_MEMORY_H

#include "harm.h"

#include <malloc.h>
#include <new>
#include <stdexcept>

namespace {

/* --- heap blocks: every byte is known --- */

struct block {
  unsigned char *p;
  uint32_t size, seed;
  uint8_t how; /* 0 malloc family, 1 operator new, 2 aligned operator new */
};

uint64_t next_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

unsigned char byte_at(uint32_t seed, uint32_t i) { return static_cast<unsigned char>((seed + i) * 2654435761u >> 24); }

void write_block(block *b, uint32_t from) {
  for (uint32_t i = from; i < b->size; i++) b->p[i] = byte_at(b->seed, i);
}

void verify_block(part *p, const block *b, uint32_t size) {
  for (uint32_t i = 0; i < size; i++) {
    if (b->p[i] == byte_at(b->seed, i)) continue;
    violation("%s: byte %u of a block of %u changed", p->name, i, b->size);
    return;
  }
}

const int BLOCKS = 256;

struct hammer {
  block blocks[BLOCKS];
  uint64_t random;
};

/* Blocks travel between the threads here, and are freed by another one. */
pthread_mutex_t exchange_lock = PTHREAD_MUTEX_INITIALIZER;
block exchange[64];

bool set_hammer(part *p) {
  hammer *h = static_cast<hammer *>(calloc(1, sizeof(hammer)));
  h->random = static_cast<uint64_t>(p->tid) * 0x9e3779b97f4a7c15u;
  p->p = h;
  return true;
}

uint32_t some_size(uint64_t r) {
  if (r % 1024 == 0) return static_cast<uint32_t>(140000 + r % 4096); /* a mapping */
  if (r % 64 == 0) return static_cast<uint32_t>(2000 + (r >> 16) % 30000);
  return static_cast<uint32_t>(1 + (r >> 16) % 600);
}

NOINLINE void make_block(part *p, block *b, uint64_t r) {
  b->size = some_size(r);
  b->seed = static_cast<uint32_t>(r >> 32);
  b->how = 0;
  void *q = nullptr;
  switch (r % 8) {
  case 0:
    q = calloc(1, b->size);
    for (uint32_t i = 0; q && i < b->size; i++)
      expect(p, static_cast<char *>(q)[i] == 0, "calloc gave a block that is not zero");
    break;
  case 1:
    expect(p, posix_memalign(&q, 256, b->size) == 0, "posix_memalign");
    expect(p, reinterpret_cast<uintptr_t>(q) % 256 == 0, "posix_memalign is not aligned");
    break;
  case 2:
    q = operator new(b->size);
    b->how = 1;
    break;
  case 3:
    q = operator new(b->size, std::align_val_t(128));
    expect(p, reinterpret_cast<uintptr_t>(q) % 128 == 0, "operator new is not aligned");
    b->how = 2;
    break;
  default: q = malloc(b->size); expect(p, malloc_usable_size(q) >= b->size, "malloc_usable_size is too small");
  }
  b->p = static_cast<unsigned char *>(q);
  expect(p, q != nullptr, "out of memory");
  if (!q) _exit(71);
  write_block(b, 0);
}

NOINLINE void end_block(part *p, block *b) {
  verify_block(p, b, b->size);
  switch (b->how) {
  case 1: operator delete(b->p, b->size); break;
  case 2: operator delete(b->p, std::align_val_t(128)); break;
  default: free(b->p);
  }
  b->p = nullptr;
}

NOINLINE void resize_block(part *p, block *b, uint64_t r) {
  if (b->how != 0) return;
  uint32_t old = b->size, size = some_size(r);
  unsigned char *q = static_cast<unsigned char *>(realloc(b->p, size));
  expect(p, q != nullptr, "realloc");
  if (!q) _exit(71);
  b->p = q;
  b->size = size;
  verify_block(p, b, old < size ? old : size);
  if (size > old) write_block(b, old);
}

void hammer_once(part *p) {
  hammer *h = static_cast<hammer *>(p->p);
  for (int i = 0; i < 200; i++) {
    uint64_t r = next_random(&h->random);
    block *b = &h->blocks[r >> 20 & (BLOCKS - 1)];
    if (!b->p) {
      make_block(p, b, next_random(&h->random));
    } else if (r % 16 == 0) {
      resize_block(p, b, next_random(&h->random));
    } else if (r % 16 == 1) {
      pthread_mutex_lock(&exchange_lock);
      block other = exchange[r >> 40 & 63];
      exchange[r >> 40 & 63] = *b;
      *b = other;
      pthread_mutex_unlock(&exchange_lock);
      if (b->p) end_block(p, b);
    } else {
      end_block(p, b);
    }
  }
  rest();
}

/* --- exceptions, thrown through frames that own blocks --- */

struct owner {
  explicit owner(part *p, size_t n) : who(p), bytes(static_cast<unsigned char *>(malloc(n))), size(n) {
    memset(bytes, 0x3c, n);
  }
  ~owner() {
    expect(who, bytes[0] == 0x3c && bytes[size - 1] == 0x3c, "a block changed while an exception passed");
    free(bytes);
  }
  owner(const owner &) = delete;
  owner &operator=(const owner &) = delete;
  part *who;
  unsigned char *bytes;
  size_t size;
};

NOINLINE void throw_deep(part *p, int level, long how) {
  owner o(p, static_cast<size_t>(30 + 50 * level));
  if (level > 0) {
    throw_deep(p, level - 1, how);
    return;
  }
  volatile size_t huge = static_cast<size_t>(1) << 60;
  if (how % 3 == 0) throw std::runtime_error("longer than the small string of libstdc++ holds");
  if (how % 3 == 1) operator delete(operator new(huge));
  expect(p, operator new(huge, std::nothrow) == nullptr, "2^60 bytes were given");
  throw how;
}

void exceptions_once(part *p) {
  for (long how = 0; how < 30; how++) {
    try {
      throw_deep(p, static_cast<int>(how % 10), how);
      violation("%s: nothing was thrown", p->name);
    } catch (const std::bad_alloc &) {
      expect(p, how % 3 == 1, "bad_alloc from nowhere");
    } catch (const std::runtime_error &) {
      expect(p, how % 3 == 0, "an error from nowhere");
    } catch (long thrown) {
      expect(p, thrown == how, "another number was thrown");
    }
  }
  rest();
}

} // namespace

#endif
