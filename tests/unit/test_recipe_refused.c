/* test_recipe_refused.c - recipes that are refused, each with its whole message, and texts that
 * mean harm.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/strbuf.h"
#include "ranker/training/recipe.h"
#include "tests/support.h"

#define COUNT_OF(a) (sizeof(a) / sizeof *(a))
#define MOST        ((size_t)1 << 20) /* bytes of a recipe */

/* A next_token recipe with lines added: these begin in line 6. */
#define GOOD                          \
    "stage: next_token\n"             \
    "parts: [{name: llm, from: a}]\n" \
    "data: {texts: [a]}\n"            \
    "steps: 100\n"                    \
    "batch: 8\n"
/* The same for rank; added lines begin in line 7. */
#define GOOD_RANK                            \
    "stage: rank\n"                          \
    "bundle: b\n"                            \
    "parts: [{name: llm, from: a}]\n"        \
    "data: {items: a, lists: [{file: b}]}\n" \
    "steps: 100\n"                           \
    "batch: 8\n"
#define PARTS(rows)                         \
    "stage: rank\nbundle: b\nparts:\n" rows \
    "data: {items: a, lists: [{file: b}]}\nlosses: [{kind: yes_no}]\nsteps: 1\nbatch: 4\n"

typedef struct {
    const char *text;
    mr_status status;
    const char *message;
} refusal;

static void check_refusals(const refusal *rows, size_t n)
{
    int failures = 0;
    for (size_t i = 0; i < n; i++) {
        mr_recipe *recipe = NULL;
        mr_error err = {0};
        const mr_status status =
            mr_recipe_parse(&recipe, "r.yaml", rows[i].text, strlen(rows[i].text), &err);
        if (status != rows[i].status || strcmp(err.message, rows[i].message) != 0 || recipe) {
            print_error("row %zu: got %s\n%s\nexpected %s\n%s\nof\n%s", i, mr_status_name(status),
                        err.message, mr_status_name(rows[i].status), rows[i].message, rows[i].text);
            failures++;
        }
        assert_int_equal(err.status, status);
        assert_int_equal(
            mr_recipe_parse(&recipe, "r.yaml", rows[i].text, strlen(rows[i].text), NULL), status);
    }
    assert_int_equal(failures, 0);
}

static void keys_that_are_unknown_or_twice_are_refused(void **state)
{
    (void)state;
    static const refusal rows[] = {
        {GOOD "optimiser: {rate: 1}\n", MR_INVALID,
         "r.yaml:6: unknown key 'optimiser'; did you mean 'optimizer'?"},
        {GOOD "optimizer:\n  rate: 0.1\n  warmup: 3\n", MR_INVALID,
         "r.yaml:8: unknown key 'warmup' in optimizer; did you mean 'warm_up'?"},
        {GOOD "checkpoint: {zzzz: 3}\n", MR_INVALID,
         "r.yaml:6: unknown key 'zzzz' in checkpoint, expected minutes, steps or keep"},
        {GOOD "losses: [{kind: next_token, wieght: 3}]\n", MR_INVALID,
         "r.yaml:6: unknown key 'wieght' in losses[0]; did you mean 'weight'?"},
        {GOOD "<<: {seed: 1}\n", MR_INVALID,
         "r.yaml:6: unknown key '<<', expected stage, seed, bundle, tokenizer, parts, freeze, "
         "data, losses, second_phase, teacher, steps, epochs, batch, accumulate, shards, "
         "max_tokens, candidates, history, user_dropout, query_dropout, token_dropout, "
         "valid_every, "
         "optimizer, checkpoint, vocabulary, style, lowercase, min_frequency or special"},
        {GOOD "batch: 8\n", MR_INVALID, "r.yaml:6: batch is there twice, first in line 5"},
        {GOOD "optimizer: {rate: 0.1, rate: 0.2}\n", MR_INVALID,
         "r.yaml:6: optimizer.rate is there twice, first in line 6"},
        {GOOD "? [a]\n: 3\n", MR_INVALID,
         "r.yaml:6: the text is a list, expected keys that are words"},
        {"seed: 1\ndata: {texts: [a]}\n", MR_INVALID, "r.yaml:1: stage is missing"},
        {"\nstage: bpe\n", MR_INVALID, "r.yaml:2: data is missing"},
        {GOOD "losses: [{weight: 1}]\n", MR_INVALID, "r.yaml:6: losses[0].kind is missing"},
        {PARTS("- {from: x}\n"), MR_INVALID, "r.yaml:4: parts[0].name is missing"},
    };
    check_refusals(rows, COUNT_OF(rows));
}

static void values_are_refused_with_what_was_expected(void **state)
{
    (void)state;
    static const refusal rows[] = {
        {GOOD "optimizer: {rate: -1}\n", MR_INVALID,
         "r.yaml:6: optimizer.rate is '-1', expected a number from 0 to 1"},
        {GOOD "optimizer: {rate: .nan}\n", MR_INVALID,
         "r.yaml:6: optimizer.rate is '.nan', expected a number from 0 to 1"},
        {GOOD "optimizer: {rate: 0x1}\n", MR_INVALID,
         "r.yaml:6: optimizer.rate is '0x1', expected a number from 0 to 1"},
        {GOOD "optimizer: 3\n", MR_INVALID,
         "r.yaml:6: optimizer is a single value, expected a mapping of keys to values"},
        {GOOD "seed: -1\n", MR_INVALID,
         "r.yaml:6: seed is '-1', expected an integer from 0 to 9007199254740992"},
        {GOOD "seed: 1e3\n", MR_INVALID,
         "r.yaml:6: seed is '1e3', expected an integer from 0 to 9007199254740992"},
        {GOOD "seed: 99999999999999999999\n", MR_INVALID,
         "r.yaml:6: seed is '99999999999999999999', expected an integer from 0 to "
         "9007199254740992"},
        {GOOD "seed: 017\n", MR_INVALID, "r.yaml:6: seed is '017': leave the leading zero out"},
        {GOOD "seed: \"17\"\n", MR_INVALID,
         "r.yaml:6: seed is the string \"17\", expected a number without quotes"},
        {GOOD "seed: [1]\n", MR_INVALID, "r.yaml:6: seed is a list, expected an integer"},
        {GOOD "seed:\n", MR_INVALID, "r.yaml:6: seed is empty; give a value or leave the key out"},
        {GOOD "tokenizer: ~\n", MR_INVALID,
         "r.yaml:6: tokenizer is empty; give a value or leave the key out"},
        {GOOD "tokenizer: ''\n", MR_INVALID,
         "r.yaml:6: tokenizer is empty; give a value or leave the key out"},
        {GOOD "tokenizer: \"a\\0b\"\n", MR_INVALID,
         "r.yaml:6: tokenizer has a control character or line break, or over 4096 bytes"},
        {GOOD "freeze: llm.*\n", MR_INVALID, "r.yaml:6: freeze is a single value, expected a list"},
        {GOOD "freeze: [a, [b]]\n", MR_INVALID, "r.yaml:6: freeze[1] is a list, expected a string"},
        {GOOD "losses: [{kind: nexttoken}]\n", MR_INVALID,
         "r.yaml:6: losses[0].kind is 'nexttoken', expected next_token, info_nce, yes_no, "
         "listwise, distill, align or sampled_softmax; did you mean 'next_token'?"},
        {GOOD "losses: [{kind: 0}]\n", MR_INVALID,
         "r.yaml:6: losses[0].kind is '0', expected next_token, info_nce, yes_no, listwise, "
         "distill, align or sampled_softmax"},
        {"stage: ranks\ndata: {}\n", MR_INVALID,
         "r.yaml:1: stage is 'ranks', expected bpe, next_token, contrastive, rank, user or "
         "caption; did you mean 'rank'?"},
        {"stage: rank\ndata: {transductive: yes}\n", MR_INVALID,
         "r.yaml:2: data.transductive is 'yes', expected true or false"},
        {GOOD "losses: [{kind: a}, {kind: b}, {}, {}, {}, {}, {}, {}]\n", MR_INVALID,
         "r.yaml:6: losses[0].kind is 'a', expected next_token, info_nce, yes_no, listwise, "
         "distill, align or sampled_softmax"},
        {GOOD "parts: 1\n", MR_INVALID, "r.yaml:6: parts is there twice, first in line 2"},
        {"stage: rank\ndata: {lists: [[a]]}\n", MR_INVALID,
         "r.yaml:2: data.lists[0] is a list, expected a mapping of keys to values"},
    };
    check_refusals(rows, COUNT_OF(rows));
}

static void text_that_is_not_plain_yaml_is_refused(void **state)
{
    (void)state;
    static const refusal rows[] = {
        {"", MR_INVALID, "r.yaml: nothing in it"},
        {"# a comment\n", MR_INVALID, "r.yaml: nothing in it"},
        {"- a\n", MR_INVALID, "r.yaml:1: the text is a list, expected a mapping of keys to values"},
        {GOOD "tokenizer: b: c\n", MR_CORRUPT,
         "r.yaml:6: not YAML: mapping values are not allowed in this context"},
        {GOOD "freeze: [a\n", MR_CORRUPT,
         "r.yaml:7: not YAML: did not find expected ',' or ']', while parsing a flow sequence"},
        {GOOD "\tseed: 1\n", MR_CORRUPT,
         "r.yaml:6: not YAML: found a tab character that violates indentation, while scanning a "
         "plain scalar"},
        {"stage: bpe\nseed: \xff\n", MR_CORRUPT, "r.yaml:2: not UTF-8"},
        {"\xff\xfes\0", MR_CORRUPT, "r.yaml:1: not UTF-8"},
        {GOOD "freeze: &a [b]\n", MR_INVALID,
         "r.yaml:6: 'a' is an anchor or an alias, which are not taken; write it out"},
        {GOOD "freeze: *a\n", MR_INVALID,
         "r.yaml:6: 'a' is an anchor or an alias, which are not taken; write it out"},
        {GOOD "seed: !!int 3\n", MR_INVALID,
         "r.yaml:6: 'tag:yaml.org,2002:int' is a tag, which are not taken; leave it out"},
        {GOOD "---\nstage: bpe\n", MR_INVALID, "r.yaml:6: a second document begins, expected one"},
    };
    check_refusals(rows, COUNT_OF(rows));
}

static void keys_that_the_stage_does_not_read_are_refused(void **state)
{
    (void)state;
    static const refusal rows[] = {
        {GOOD "user_dropout: 0.1\n", MR_INVALID,
         "r.yaml:6: stage next_token does not read 'user_dropout', which is for rank; take it out"},
        {"stage: bpe\ndata: {texts: [a]}\nvocabulary: 300\noptimizer:\n  rate: 1e-3\n", MR_INVALID,
         "r.yaml:4: stage bpe does not read 'optimizer', which is for next_token, contrastive, "
         "rank, user and caption; take it out"},
        {GOOD "style: qwen2\n", MR_INVALID,
         "r.yaml:6: stage next_token does not read 'style', which is for bpe; take it out"},
        {GOOD_RANK "vocabulary: 300\n", MR_INVALID,
         "r.yaml:7: stage rank does not read 'vocabulary', which is for bpe; take it out"},
        {"stage: user\nparts: [{name: user, from: a}]\n"
         "data:\n  items: a\n  users: b\n  texts: [c]\nsteps: 1\nbatch: 4\n",
         MR_INVALID,
         "r.yaml:6: stage user does not read 'data.texts', which is for bpe and next_token; take "
         "it out"},
        {GOOD_RANK "losses: [{kind: listwise, temperature: 2}]\n", MR_INVALID,
         "r.yaml:7: losses[0].temperature has no effect: loss 'listwise' has none"},
        {GOOD_RANK "losses: [{kind: listwise, weight_late: 2}]\n", MR_INVALID,
         "r.yaml:7: losses[0].weight_late has no effect: 'second_phase' says when it begins"},
        {GOOD_RANK "losses: [{kind: listwise}]\nteacher: x\n", MR_INVALID,
         "r.yaml:8: teacher has no effect without loss 'distill' or 'align'"},
        {PARTS("- {name: llm, from: a, width: 32}\n"), MR_INVALID,
         "r.yaml:4: parts[0].width has no effect: part 'llm' comes from a file"},
        {PARTS("- {name: llm, from: a}\n- {name: item_projector, new: mlp, width: 64}\n"),
         MR_INVALID, "r.yaml:5: parts[1].width has no effect: part 'item_projector' is a new mlp"},
        {PARTS("- {name: llm, from: a, share_qk: true}\n"), MR_INVALID,
         "r.yaml:4: parts[0].share_qk has no effect without 'layers': part 'llm' comes from a "
         "file"},
        {PARTS("- {name: item_projector, new: mlp, scale: 2}\n"), MR_INVALID,
         "r.yaml:4: parts[0].scale has no effect: part 'item_projector' is a new mlp"},
        {PARTS("- {name: user, new: perceiver, layers: 1, heads: 2, ffn: 64, vocab: 64}\n"),
         MR_INVALID, "r.yaml:4: parts[0].vocab has no effect: part 'user' is a new perceiver"},
    };
    check_refusals(rows, COUNT_OF(rows));
}

static void what_a_stage_needs_must_be_there(void **state)
{
    (void)state;
    static const refusal rows[] = {
        {"stage: bpe\ndata: {texts: []}\nvocabulary: 300\n", MR_INVALID,
         "r.yaml:1: stage bpe needs data.texts, which is missing or empty"},
        {"stage: bpe\ndata: {texts: [a]}\nvocabulary: 300\nstyle: bert\n", MR_INVALID,
         "r.yaml:4: style is 'bert', expected gpt2 or qwen2"},
        {"stage: bpe\ndata: {texts: [a]}\nvocabulary: 300\nmin_frequency: 0\n", MR_INVALID,
         "r.yaml:4: min_frequency is '0', expected an integer from 1 to 1000000000"},
        {"stage: bpe\ndata: {texts: [a]}\n", MR_INVALID,
         "r.yaml:1: stage bpe needs vocabulary, which is missing or empty"},
        {"stage: contrastive\ndata: {items: a, pairs: []}\n", MR_INVALID,
         "r.yaml:1: stage contrastive needs data.pairs or data.lists or data.users, which is "
         "missing or empty"},
        {"stage: next_token\ndata: {texts: [a]}\nsteps: 1\nbatch: 1\n", MR_INVALID,
         "r.yaml:1: stage next_token needs parts: llm missing"},
        {"stage: caption\nparts: [{name: llm, from: a}]\ndata: {captions: a}\n", MR_INVALID,
         "r.yaml:2: stage caption needs parts: vision and image_projector missing"},
        {GOOD_RANK, MR_INVALID,
         "r.yaml:1: losses are missing; those of stage rank are yes_no, listwise, distill and "
         "align"},
        {GOOD_RANK "losses: [{kind: info_nce}]\n", MR_INVALID,
         "r.yaml:7: losses[0].kind is 'info_nce'; losses of stage rank are yes_no, listwise, "
         "distill and align"},
        {GOOD_RANK "losses: [{kind: yes_no}, {kind: yes_no}]\n", MR_INVALID,
         "r.yaml:7: losses[1].kind: loss 'yes_no' is there twice"},
        {GOOD_RANK "losses: [{kind: yes_no, weight: 0}]\n", MR_INVALID,
         "r.yaml:7: losses have weight 0 altogether"},
        {GOOD_RANK "losses: [{kind: yes_no, weight_late: 0}]\nsecond_phase: 0.5\n", MR_INVALID,
         "r.yaml:7: losses have weight 0 altogether in the second phase"},
        {GOOD_RANK "losses: [{kind: distill}]\n", MR_INVALID,
         "r.yaml:7: loss 'distill' needs 'teacher', the bundle.json of the text side"},
        {GOOD_RANK "losses: [{kind: align}]\n", MR_INVALID,
         "r.yaml:7: loss 'align' needs 'teacher', the bundle.json of the text side"},
        {GOOD_RANK "losses: [{kind: distill}]\nteacher: x\n", MR_INVALID,
         "r.yaml:7: loss 'distill' needs a part 'teacher'"},
        {PARTS("- {name: llm, from: a}\n- {name: teacher, from: b}\n"), MR_INVALID,
         "r.yaml:3: part 'teacher' has no effect without loss 'distill'"},
        {GOOD "epochs: 3\n", MR_INVALID,
         "r.yaml:6: there are both 'steps' and 'epochs', expected one of them"},
        {"stage: next_token\nparts: [{name: llm, from: a}]\ndata: {texts: [a]}\nbatch: 1\n",
         MR_INVALID, "r.yaml:1: there is neither 'steps' nor 'epochs', expected one of them"},
        {"stage: next_token\nparts: [{name: llm, from: a}]\ndata: {texts: [a]}\nsteps: 1\n",
         MR_INVALID, "r.yaml:1: batch is missing: how many examples a step learns from"},
        {GOOD "shards: 9\n", MR_INVALID, "r.yaml:6: shards is 9, expected at most batch (8)"},
        {GOOD "optimizer: {warm_up: 101}\n", MR_INVALID,
         "r.yaml:6: optimizer.warm_up is 101, expected at most steps (100)"},
    };
    check_refusals(rows, COUNT_OF(rows));
}

static void parts_must_make_sense(void **state)
{
    (void)state;
    static const refusal rows[] = {
        {PARTS("- {name: lm, from: a}\n"), MR_INVALID,
         "r.yaml:4: parts[0].name is 'lm'; parts of stage rank are llm, encoder, teacher, "
         "teacher_projector, item_projector, user and user_projector; did you mean 'llm'?"},
        {PARTS("- {name: vision, from: a}\n"), MR_INVALID,
         "r.yaml:4: parts[0].name is 'vision'; parts of stage rank are llm, encoder, teacher, "
         "teacher_projector, item_projector, user and user_projector"},
        {PARTS("- {name: llm, from: a}\n- {name: llm, from: a}\n"), MR_INVALID,
         "r.yaml:5: parts[1].name: part 'llm' is there twice"},
        {PARTS("- name: llm\n"), MR_INVALID,
         "r.yaml:4: parts[0].name: part 'llm' has neither 'from' nor 'new', expected one of them"},
        {PARTS("- {name: llm, from: a, new: decoder}\n"), MR_INVALID,
         "r.yaml:4: parts[0].name: part 'llm' has both 'from' and 'new', expected one of them"},
        {PARTS("- {name: llm, new: linear}\n"), MR_INVALID,
         "r.yaml:4: parts[0].new is 'linear', expected decoder for part 'llm'"},
        {PARTS("- {name: item_projector, new: big}\n"), MR_INVALID,
         "r.yaml:4: parts[0].new is 'big', expected linear or mlp for part 'item_projector'"},
        {"stage: caption\nparts: [{name: vision, new: clip}]\ndata: {captions: a}\n", MR_INVALID,
         "r.yaml:2: parts[0].new: part 'vision' cannot be new; give 'from'"},
        {PARTS("- {name: llm, new: decoder, layers: 2, width: 96, heads: 3}\n"), MR_INVALID,
         "r.yaml:3: parts[0].ffn is missing: a new decoder has no shape without it"},
        {PARTS("- {name: user, new: perceiver, layers: 2, ffn: 64, heads: 3}\n"), MR_INVALID,
         "r.yaml:3: parts[0].latents is missing: a new perceiver has no shape without it"},
        {PARTS("- {name: llm, new: decoder, layers: 2, width: 97, heads: 3, ffn: 64}\n"),
         MR_INVALID,
         "r.yaml:4: parts[0].width is 97, expected a multiple of heads (3), or a head_dim"},
        {PARTS("- {name: llm, new: decoder, layers: 2, width: 99, heads: 3, ffn: 64}\n"),
         MR_INVALID,
         "r.yaml:4: parts[0].width gives heads of 33, expected an even number: positions turn "
         "pairs"},
        {PARTS("- {name: llm, new: decoder, layers: 2, width: 96, heads: 3, ffn: 64, kv_heads: 2}"
               "\n"),
         MR_INVALID, "r.yaml:4: parts[0].kv_heads is 2, expected a divisor of heads (3)"},
        {PARTS("- {name: llm, new: decoder, layers: 2, width: 96, heads: 3, ffn: 64, head_dim: 5}"
               "\n"),
         MR_INVALID,
         "r.yaml:4: parts[0].head_dim gives heads of 5, expected an even number: positions turn "
         "pairs"},
    };
    check_refusals(rows, COUNT_OF(rows));
}

/* The kind of text that grows to gigabytes when aliases are followed, nests without end, or is just
 * long: refused at once. */
static void hostile_texts_end_early(void **state)
{
    (void)state;
    mr_recipe *recipe = NULL;
    mr_error err = {0};
    mr_strbuf text = {0};
    for (char c = 'b'; c < 'k'; c++) {
        mr_strbuf_printf(&text, "%c: &%c [*%c", c, c, c - 1);
        for (int i = 0; i < 8; i++)
            mr_strbuf_printf(&text, ", *%c", c - 1);
        mr_strbuf_puts(&text, "]\n");
    }
    assert_status(mr_recipe_parse(&recipe, "r", text.data, text.len, &err), MR_INVALID, &err);

    static const char *const repeated[] = {"[",    "{",    "- ", "? ",   "a: ", "[[a]: {",
                                           "&a ",  "!!a ", "\"", "# \n", "\n",  "a\n",
                                           "%A\n", "|\n",  ": ", ", "};
    for (size_t i = 0; i < COUNT_OF(repeated); i++) {
        mr_strbuf_clear(&text);
        while (text.len + strlen(repeated[i]) <= MOST && !text.failed)
            mr_strbuf_puts(&text, repeated[i]);
        err = (mr_error){0};
        const mr_status status = mr_recipe_parse(&recipe, "r", text.data, text.len, &err);
        if (status == MR_OK || err.message[0] == '\0')
            fail_msg("1 MiB of '%s' is %s '%s', expected an error", repeated[i],
                     mr_status_name(status), err.message);
    }
    mr_strbuf_clear(&text);
    mr_strbuf_puts(&text, GOOD "freeze: [a");
    for (int i = 0; i < 256; i++)
        mr_strbuf_puts(&text, ", a");
    mr_strbuf_puts(&text, "]\n");
    err = (mr_error){0};
    assert_status(mr_recipe_parse(&recipe, "r", text.data, text.len, &err), MR_INVALID, &err);
    assert_string_equal(err.message, "r:6: freeze has more than 256 entries");

    mr_strbuf_clear(&text);
    mr_strbuf_puts(&text, GOOD);
    while (text.len <= MOST)
        mr_strbuf_puts(&text, "# and so on\n");
    err = (mr_error){0};
    assert_status(mr_recipe_parse(&recipe, "r", text.data, text.len, &err), MR_EXHAUSTED, &err);
    assert_contains(err.message, "at most 1048576 are read");
    mr_strbuf_release(&text);
}

static void parse_bad(const void *context)
{
    mr_recipe *recipe = NULL;
    const char *text = context;
    assert_int_not_equal(mr_recipe_parse(&recipe, "r", text, strlen(text), NULL), MR_OK);
}

static void nothing_is_printed(void **state)
{
    (void)state;
    static const char *const texts[] = {"a: b: c", GOOD "seed: -1\n", GOOD "x: 1\n", "- a\n"};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        char *printed = test_capture_stderr(parse_bad, texts[i]);
        assert_string_equal(printed, "");
        free(printed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_that_are_unknown_or_twice_are_refused),
        cmocka_unit_test(values_are_refused_with_what_was_expected),
        cmocka_unit_test(text_that_is_not_plain_yaml_is_refused),
        cmocka_unit_test(keys_that_the_stage_does_not_read_are_refused),
        cmocka_unit_test(what_a_stage_needs_must_be_there),
        cmocka_unit_test(parts_must_make_sense),
        cmocka_unit_test(hostile_texts_end_early),
        cmocka_unit_test(nothing_is_printed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
