/* SPDX-License-Identifier: BSD-2-Clause */

#ifndef TG_LINE_H
#define TG_LINE_H

/* Bytes that the processor fetches at once; not all do 64, but none is wrong with it. */
#define TG_CACHE_LINE  64

#endif /* TG_LINE_H */
