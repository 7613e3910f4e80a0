/* SPDX-License-Identifier: BSD-2-Clause */

#include "compile_fixture.h"

#define N53  "9007199254740991"

static const struct {
    const char  *text;          /* members beside those of the document */
    uint32_t     flags;
    uint32_t     id;
    uint32_t     carry_id;
    uint32_t     carried;       /* words */
} accepted[] = {
    { "{}", 0, 0, 0, 0 },
    { "{'hold':false,'misdirected':false,'forward':null,'handover':null,"
      "'carry':null,'carry_id':null}", 0, 0, 0, 0 },
    { "{'hold':true}", TG_BLOCK_HOLD, 0, 0, 0 },
    { "{'misdirected':true}", TG_BLOCK_MISDIRECTED, 0, 0, 0 },
    { "{'forward':'root'}", TG_BLOCK_FORWARD, 0, 0, 0 },
    { "{'forward':'root','hold':true}", TG_BLOCK_FORWARD | TG_BLOCK_HOLD, 0, 0,
      0 },
    { "{'misdirected':true,'hold':true}",
      TG_BLOCK_MISDIRECTED | TG_BLOCK_HOLD, 0, 0, 0 },
    { "{'forward':'orders','handover':{'id':7}}", TG_BLOCK_FORWARD, 7, 0, 0 },
    { "{'handover':{'id':4294967295,'more':1}}", 0, UINT32_MAX, 0, 0 },
    { "{'carry':[]}", 0, 0, 0, 0 },
    { "{'carry':[],'carry_id':7}", 0, 0, 7, 0 },
    { "{'carry_id':7}", 0, 0, 7, 0 },
    { "{'carry_id':7,'carry':[{'quota':41,'level':'a00000','at':1}]}", 0, 0, 7,
      1 },
    { "{'carry_id':7,'carry':["
      "{'quota':" N53 ",'key':'0','level':'0','at':" N53 ",'unknown':{}},"
      "{'quota':1,'key':'FFFFFFFFFFFFFFFF','name':'','word':'ffffffffffffffff'},"
      "{'quota':1,'key':'1','name':'Gr\xc3\xbc\xc3\x9f" "e','word':'1'},"
      "{'quota':1,'key':'1','name':"
      "'12345678901234567890123456789012345678901234567','word':'1'},"
      "{'quota':1,'key':null,'name':null,'word':'01','at':5}]}", 0, 0, 7, 5 },
};

static const struct {
    const char  *text;
    const char  *where;
} refused[] = {
    { "{'hold':1}", "/hold" },
    { "{'hold':'true'}", "/hold" },
    { "{'misdirected':0}", "/misdirected" },
    { "{'forward':true}", "/forward" },
    { "{'forward':''}", "/forward" },
    { "{'forward':'nope'}", "/forward" },
    { "{'forward':'Root'}", "/forward" },
    { "{'forward':'acme'}", "/forward" },
    { "{'forward':'a b'}", "/forward" },
    { "{'forward':'root','misdirected':true}", "/misdirected" },
    { "{'handover':7}", "/handover" },
    { "{'handover':[7]}", "/handover" },
    { "{'handover':{}}", "/handover/id" },
    { "{'handover':{'id':0}}", "/handover/id" },
    { "{'handover':{'id':-1}}", "/handover/id" },
    { "{'handover':{'id':'7'}}", "/handover/id" },
    { "{'handover':{'id':1.5}}", "/handover/id" },
    { "{'handover':{'id':4294967296}}", "/handover/id" },
    { "{'carry_id':0}", "/carry_id" },
    { "{'carry_id':'7'}", "/carry_id" },
    { "{'carry_id':4294967296}", "/carry_id" },
    { "{'carry':{},'carry_id':7}", "/carry" },
    { "{'carry':'x','carry_id':7}", "/carry" },
    { "{'carry':[{'quota':41,'word':'1'}]}", "/carry_id" },
    { "{'carry_id':7,'carry':[7]}", "/carry/0" },
    { "{'carry_id':7,'carry':[{'word':'1'}]}", "/carry/0/quota" },
    { "{'carry_id':7,'carry':[{'quota':0,'word':'1'}]}", "/carry/0/quota" },
    { "{'carry_id':7,'carry':[{'quota':'41','word':'1'}]}", "/carry/0/quota" },
    { "{'carry_id':7,'carry':[{'quota':41}]}", "/carry/0/level" },
    { "{'carry_id':7,'carry':[{'quota':41,'level':'1'}]}", "/carry/0/at" },
    { "{'carry_id':7,'carry':[{'quota':41,'level':'1','at':0}]}",
      "/carry/0/at" },
    { "{'carry_id':7,'carry':[{'quota':41,'level':'1','at':-5}]}",
      "/carry/0/at" },
    { "{'carry_id':7,'carry':[{'quota':41,'level':'1','at':1.5}]}",
      "/carry/0/at" },
    { "{'carry_id':7,'carry':[{'quota':41,'level':1,'at':1}]}",
      "/carry/0/level" },
    { "{'carry_id':7,'carry':[{'quota':41,'level':'','at':1}]}",
      "/carry/0/level" },
    { "{'carry_id':7,'carry':[{'quota':41,'level':'0x1','at':1}]}",
      "/carry/0/level" },
    { "{'carry_id':7,'carry':[{'quota':41,'level':'-1','at':1}]}",
      "/carry/0/level" },
    { "{'carry_id':7,'carry':[{'quota':41,'level':' 1','at':1}]}",
      "/carry/0/level" },
    { "{'carry_id':7,'carry':[{'quota':41,'level':'1\\u0000','at':1}]}",
      "/carry/0/level" },
    { "{'carry_id':7,'carry':[{'quota':41,'level':'11111111111111111','at':1}]}",
      "/carry/0/level" },
    { "{'carry_id':7,'carry':[{'quota':41,'word':5}]}", "/carry/0/word" },
    { "{'carry_id':7,'carry':[{'quota':41,'word':'g'}]}", "/carry/0/word" },
    { "{'carry_id':7,'carry':[{'quota':41,'word':'1','level':'1','at':1}]}",
      "/carry/0/level" },
    { "{'carry_id':7,'carry':[{'quota':1,'word':'1'},"
      "{'quota':41,'key':5,'word':'1'}]}", "/carry/1/key" },
    { "{'carry_id':7,'carry':[{'quota':41,'key':'','word':'1'}]}",
      "/carry/0/key" },
    { "{'carry_id':7,'carry':[{'quota':41,'key':'1','name':5,'word':'1'}]}",
      "/carry/0/name" },
    { "{'carry_id':7,'carry':[{'quota':41,'key':'1','name':'a\\nb','word':'1'}]}",
      "/carry/0/name" },
    { "{'carry_id':7,'carry':[{'quota':41,'key':'1','name':"
      "'123456789012345678901234567890123456789012345678','word':'1'}]}",
      "/carry/0/name" },
};


/* The document with further members. */
static tg_block_t *
extended(const char *members, tg_error_t *err)
{
    json_t      *json, *more;
    tg_block_t  *block;

    json = load(document);
    more = load(members);
    assert_int_equal(json_object_update(json, more), 0);
    block = tg_compile_json(json, TG_KIND_TENANT, NULL, err);
    json_decref(more);
    json_decref(json);

    return block;
}


static void
test_accepted(void **state)
{
    tg_error_t            err;
    tg_block_t           *block;
    const tg_handover_t  *handover;

    (void) state;

    for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++) {
        block = extended(accepted[i].text, &err);

        if (block == NULL) {
            fail_msg("%s: %s: %s", accepted[i].text, err.pointer, err.message);
        }

        assert_true(tg_block_check(block, block->size));
        assert_int_equal(block->flags, accepted[i].flags);
        assert_int_equal(block->carried, 0);

        handover = tg_block_handover(block);
        assert_int_equal(handover ? handover->id : 0, accepted[i].id);
        assert_int_equal(handover ? handover->carry_id : 0,
                         accepted[i].carry_id);
        assert_int_equal(handover ? handover->carry.n : 0, accepted[i].carried);

        tg_compile_free(block);
    }
}


static void
test_refused(void **state)
{
    tg_error_t   err;
    tg_block_t  *block;

    (void) state;

    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        memset(&err, 'x', sizeof(err));
        block = extended(refused[i].text, &err);

        if (block != NULL) {
            fail_msg("%s passed", refused[i].text);
        }

        if (strcmp(err.pointer, refused[i].where) != 0) {
            fail_msg("%s: pointer is \"%s\" (%s)", refused[i].text, err.pointer,
                     err.message);
        }
    }
}


static void
test_contents(void **state)
{
    tg_error_t            err;
    tg_block_t           *block;
    const tg_carry_t     *carry;
    const tg_route_t     *route;
    const tg_handover_t  *handover;

    (void) state;

    block = extended("{'forward':'root','carry_id':9,'carry':["
                     "{'quota':41,'level':'Ff00000','at':1790000000123},"
                     "{'quota':44,'key':'fedcba9876543210','name':'mobile',"
                     "'word':'2ab0000000007'}]}", &err);
    assert_non_null(block);
    handover = tg_block_handover(block);

    /* routes have been sorted since */
    route = tg_vec(block, block->routes, tg_route_t) + handover->forward;
    assert_ref(block, route->name, "root");

    carry = tg_vec(block, handover->carry, tg_carry_t);
    assert_int_equal(carry[0].quota, 41);
    assert_int_equal(carry[0].key, 0);
    assert_int_equal(carry[0].value, 0xff00000);
    assert_int_equal(carry[0].at, UINT64_C(1790000000123));
    assert_int_equal(carry[0].calendar, 0);
    assert_int_equal(carry[0].name.off, 0);
    assert_int_equal(carry[1].quota, 44);
    assert_true(carry[1].key == UINT64_C(0xfedcba9876543210));
    assert_int_equal(carry[1].value, UINT64_C(0x2ab0000000007));
    assert_int_equal(carry[1].at, 0);
    assert_int_equal(carry[1].calendar, 1);
    assert_ref(block, carry[1].name, "mobile");

    tg_compile_free(block);
}


/* All words that a document may have, and one more. */
static void
test_most(void **state)
{
    json_t      *json, *array, *word;
    tg_error_t   err;
    tg_block_t  *block;

    (void) state;

    json = load(document);
    word = load("{'quota':41,'key':'1','name':'x','word':'1'}");
    array = json_array();

    for (size_t i = 0; i < TG_MAX_CARRY; i++) {
        assert_int_equal(json_array_append(array, word), 0);
    }

    put(json, "/carry", array);
    put(json, "/carry_id", json_integer(1));
    block = tg_compile_json(json, TG_KIND_TENANT, NULL, &err);
    assert_non_null(block);
    assert_int_equal(tg_block_handover(block)->carry.n, TG_MAX_CARRY);
    assert_true(tg_block_check(block, block->size));
    tg_compile_free(block);

    assert_int_equal(json_array_append(array, word), 0);
    assert_null(tg_compile_json(json, TG_KIND_TENANT, NULL, &err));
    assert_string_equal(err.pointer, "/carry");

    json_decref(word);
    json_decref(json);
}


static void
test_damage(void **state)
{
    tg_error_t      err;
    tg_block_t     *block, *copy;
    tg_carry_t     *carry;
    tg_handover_t  *handover;

    (void) state;

    block = extended("{'forward':'root','handover':{'id':3},'carry_id':9,"
                     "'carry':[{'quota':41,'key':'1','name':'a','word':'1'}]}",
                     &err);
    assert_non_null(block);
    assert_true(tg_block_check(block, block->size));
    copy = malloc(block->size);
    assert_non_null(copy);

#define DAMAGE(change)                                                        \
    memcpy(copy, block, block->size);                                         \
    handover = tg_at(copy, copy->handover);                                   \
    carry = tg_vec(copy, handover->carry, tg_carry_t);                        \
    (void) carry;                                                             \
    change;                                                                   \
    assert_false(tg_block_check(copy, block->size))

    DAMAGE(copy->flags |= 8);
    DAMAGE(copy->flags |= 0x80000000);
    DAMAGE(copy->handover = 0);
    DAMAGE(copy->handover = 8);
    DAMAGE(copy->handover += 4);
    DAMAGE(copy->handover = copy->size);
    DAMAGE(copy->handover = copy->size / 8 * 8 - 8);
    DAMAGE(copy->handover = UINT32_MAX - 7);
    DAMAGE(handover->forward = copy->routes.n);
    DAMAGE(handover->carry_id = 0);
    DAMAGE(handover->carry.n = TG_MAX_CARRY);
    DAMAGE(handover->carry.n = UINT32_MAX);
    DAMAGE(handover->carry.off += 4);
    DAMAGE(handover->carry.off = copy->size / 8 * 8);
    DAMAGE(carry->calendar = 2);
    DAMAGE(carry->name.off = copy->size);
    DAMAGE(carry->name.len = 1000000);

#undef DAMAGE

    free(copy);
    tg_compile_free(block);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_contents),
        cmocka_unit_test(test_most),
        cmocka_unit_test(test_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
