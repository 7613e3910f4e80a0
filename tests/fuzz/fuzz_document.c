/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A document of somebody else.  Whatever compiles must pass the check of blocks.
 */

#include <stdint.h>
#include <stdlib.h>

#include "tg_compile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
compile(const uint8_t *data, size_t size, tg_kind_e kind)
{
    tg_error_t      err;
    tg_block_t     *block;
    const uint8_t   key[32] = { 1 };

    block = tg_compile((const char *) data, size, kind, key, &err);

    if (block == NULL) {
        if (err.message[0] == '\0') {
            abort();
        }

        return;
    }

    if (!tg_block_check(block, block->size)) {
        abort();
    }

    tg_compile_free(block);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    compile(data, size, TG_KIND_TENANT);
    compile(data, size, TG_KIND_ISSUER);

    return 0;
}
