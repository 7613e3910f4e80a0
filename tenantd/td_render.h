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
 * A string with control characters, or that is not UTF-8, is refused, and so is
 * one with "$", in which nginx would look for variables, unless the property of
 * the schema says "variables": true; "variable_names" may list those that it may
 * be.
 *
 * A place {{@name}} stands where a directive may begin, for text that was made
 * here already: the caller gives it as a block.
 */

#ifndef TD_RENDER_H
#define TD_RENDER_H

#include <jansson.h>

#include "tg_error.h"
#include "tg_text.h"

/* nginx reads no argument that is longer than its buffer of 4096 bytes, in which
 * each byte may have got a backslash. */
#define TD_RENDER_MAX_STRING  2000

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

/* Adds one quoted argument; the same rules as for a string parameter.  property: of
 * the schema, or NULL. */
int td_render_string(tg_text_t *out, const char *s, size_t len,
    const json_t *property, tg_error_t *err);

#endif /* TD_RENDER_H */
