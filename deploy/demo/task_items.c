/* task_items.c - C, known item: what somebody remembers of a product -> the product.
 *
 * The query is the short description without the words of the product's name, the document the
 * long description alone (items_long.jsonl): with the short one inside the text the task would be
 * a string search. Training queries name train items only. Test queries ask for test items among
 * candidates of both folds.
 * SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "core/strbuf.h"
#include "deploy/demo/tasks.h"

#define HARD_NEGATIVES 50
#define VALID_SHARE    0.1 /* of the train items */

typedef struct {
    const demo_task_input *in;
    uint8_t *taken;
    uint8_t *train; /* per item: may be named by a training query */
    demo_ids all;   /* every item */
    demo_ids candidates, pool;
    mr_strbuf words;
} known;

static bool is_word_byte(char c)
{
    return isalnum((unsigned char)c) || c == '+' || c == '#';
}

static bool same_word(mr_str a, mr_str b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (tolower((unsigned char)a.data[i]) != tolower((unsigned char)b.data[i]))
            return false;
    return true;
}

static bool word_next(mr_str *rest, mr_str *word)
{
    size_t begin = 0;
    while (begin < rest->len && !is_word_byte(rest->data[begin]))
        begin++;
    size_t end = begin;
    while (end < rest->len && is_word_byte(rest->data[end]))
        end++;
    *word = (mr_str){rest->data + begin, end - begin};
    *rest = (mr_str){rest->data + end, rest->len - end};
    return word->len > 0;
}

/* "lib-foo2" gives away "lib", "foo2" and "libfoo2". */
static bool is_of_name(mr_str word, mr_str name)
{
    if (demo_same_letters(word, name))
        return true;
    mr_str part;
    while (word_next(&name, &part))
        if (same_word(word, part))
            return true;
    return false;
}

void demo_without_name(mr_strbuf *out, mr_str text, const mr_str *names, size_t n_names)
{
    mr_str word;
    while (word_next(&text, &word)) {
        bool given_away = false;
        for (size_t i = 0; i < n_names && !given_away; i++)
            given_away = is_of_name(word, names[i]);
        if (given_away)
            continue;
        if (out->len)
            mr_strbuf_append(out, " ", 1);
        mr_strbuf_append(out, word.data, word.len);
    }
}

mr_status demo_known_item_split(const demo_item *item, demo_fold *out, mr_error *err)
{
    double unit = 0;
    mr_status status = demo_unit_hash("valid", item->id, &unit, err);
    *out = item->fold == DEMO_TEST ? DEMO_TEST : unit < VALID_SHARE ? DEMO_VALID : DEMO_TRAIN;
    return status;
}

static mr_status take_shuffled(known *k, const demo_ids *from, bool train_only, mr_rng *rng,
                               mr_error *err)
{
    k->pool.n = 0;
    for (size_t i = 0; i < from->n; i++) {
        if (k->taken[from->id[i]] || (train_only && !k->train[from->id[i]]))
            continue;
        mr_status status = demo_ids_push(&k->pool, from->id[i], err);
        if (status != MR_OK)
            return status;
    }
    demo_ids_shuffle(&k->pool, rng);
    return demo_take(&k->candidates, &k->pool, k->in->rules.candidates - k->candidates.n, k->taken,
                     err);
}

/* The item, the documents that BM25 finds hardest, then items of its section, then any. */
static mr_status choose_candidates(known *k, uint32_t own, mr_str query, bool train_only,
                                   mr_rng *rng, mr_error *err)
{
    const demo_items *items = k->in->items;
    uint32_t hard[HARD_NEGATIVES + 1];
    size_t n_hard = 0;
    demo_terms terms = demo_terms_of(k->in->detail, query);
    mr_status status = demo_bm25_top(k->in->detail, &terms, train_only ? k->train : NULL,
                                     HARD_NEGATIVES + 1, hard, &n_hard, err);
    k->candidates.n = 0;
    if (status == MR_OK)
        status = demo_ids_push(&k->candidates, own, err);
    k->taken[own] = 1;
    demo_ids found = {.id = hard, .n = n_hard};
    size_t room = k->in->rules.candidates / 2;
    if (status == MR_OK)
        status = demo_take(&k->candidates, &found, room < HARD_NEGATIVES ? room : HARD_NEGATIVES,
                           k->taken, err);
    if (status == MR_OK)
        status =
            take_shuffled(k, &items->in_section[items->item[own].section], train_only, rng, err);
    if (status == MR_OK && k->candidates.n < k->in->rules.candidates)
        status = take_shuffled(k, &k->all, train_only, rng, err);
    for (size_t i = 0; i < k->candidates.n; i++)
        k->taken[k->candidates.id[i]] = 0;
    demo_ids_shuffle(&k->candidates, rng);
    return status;
}

static mr_status ask_for(known *k, uint32_t own, bool whole_catalogue, mr_error *err)
{
    const demo_item *item = &k->in->items->item[own];
    const mr_str names[] = {item->id, item->source};
    mr_strbuf_clear(&k->words);
    demo_without_name(&k->words, item->summary, names, 2);
    if (k->words.failed)
        return MR_FAIL(err, NO_MEMORY, "the words of a query");
    mr_str text = {k->words.data ? k->words.data : "", k->words.len};
    if (demo_stem_count(text) < DEMO_QUERY_WORDS_MIN)
        return MR_OK;

    static const int grade[] = {1};
    demo_ids relevant = {.id = &own, .n = 1};
    demo_query query = {
        .task = whole_catalogue ? DEMO_C_ALL : DEMO_C,
        .text = text,
        .relevant = &relevant,
        .grade = grade,
    };
    mr_status status = demo_known_item_split(item, &query.split, err);
    if (status != MR_OK || (whole_catalogue && query.split != DEMO_TEST))
        return status;
    if (!whole_catalogue) {
        mr_rng rng = demo_seed(DEMO_C, demo_text_key(item->id));
        status = choose_candidates(k, own, text, query.split != DEMO_TEST, &rng, err);
        if (status != MR_OK || k->candidates.n < 2)
            return status;
        query.candidates = &k->candidates;
    }
    return k->in->sink->put(k->in->sink, &query, err);
}

mr_status demo_tasks_items(const demo_task_input *input, mr_error *err)
{
    const demo_items *items = input->items;
    known k = {.in = input};
    mr_status status = MR_OK;
    k.taken = calloc(items->n + 1, 1);
    k.train = calloc(items->n + 1, 1);
    if (!k.taken || !k.train) {
        status = MR_FAIL(err, NO_MEMORY, "tables of %zu items", items->n);
        goto out;
    }
    for (size_t i = 0; i < items->n && status == MR_OK; i++) {
        k.train[i] = items->item[i].fold != DEMO_TEST;
        status = demo_ids_push(&k.all, (uint32_t)i, err);
    }
    for (int whole = 0; whole < 2; whole++)
        for (size_t i = 0; i < items->n && status == MR_OK; i++)
            status = ask_for(&k, (uint32_t)i, whole == 1, err);

out:
    free(k.taken);
    free(k.train);
    demo_ids_done(&k.all);
    demo_ids_done(&k.candidates);
    demo_ids_done(&k.pool);
    mr_strbuf_release(&k.words);
    return status;
}
