/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Templates of nginx configuration, docs/reference/plugins.md.  A template is
 * written by the operator and is trusted; the parameters are the tenant's and are
 * not.  A place {{name}} stands for whole arguments of a directive: never for a
 * part of one, for a directive's name, or inside quotes.  What a parameter becomes
 * depends on its type:
 *
 *   string   one quoted argument, in which nginx reads exactly these characters
 *   integer  its digits         number  digits with a point
 *   boolean  on or off          array   one argument for each of its items
 *
 * {{name[]}} stands for one item of an array, and its line is there for each.  A
 * line with a parameter that is absent or an empty array is left out.
 *
 * A string with control characters, or that is not UTF-8, is refused, and so is
 * one with "$", in which nginx would look for variables, unless "variables" of the
 * property in the schema is true, or an array that names the variable.
 *
 * A place {{@name}} stands where a directive may begin, for text that was made
 * here already: the caller gives it as a block.
 */

#ifndef TD_RENDER_H
#define TD_RENDER_H

#include <jansson.h>

#include "tg_error.h"
#include "tg_text.h"

/* nginx reads no argument that is longer than its buffer of 4096 bytes; with
 * many quotes in it nginx -t may refuse a shorter one. */
#define TD_RENDER_MAX_STRING  4000

typedef struct {
    const char  *name;
    const char  *text;
} td_render_block_t;

typedef struct {
    const json_t             *parameters;   /* object, or NULL */
    const json_t             *schema;       /* JSON schema of it, or NULL */
    const td_render_block_t  *blocks;       /* ends with a NULL name; or NULL */
} td_render_values_t;

/*
 * Adds the template with its places filled to out.  Returns 0, or -1 with err:
 * pointer is the parameter's JSON pointer, or "" when the template is at fault.
 */
int td_render(tg_text_t *out, const char *template,
    const td_render_values_t *values, tg_error_t *err);

/* Adds one quoted argument; the same rules as for a string parameter.  variables:
 * as in the schema, or NULL. */
int td_render_string(tg_text_t *out, const char *s, size_t len,
    const json_t *variables, tg_error_t *err);

#endif /* TD_RENDER_H */
