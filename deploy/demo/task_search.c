/* task_search.c - E1, personalised search: a topic and a basket, the person's own pick on top.
 *
 * Labels come from tags, and tags stopped years ago: an untagged item is new, not irrelevant. So
 * every candidate has at least two content tags, and tags must never be an input of a ranker here.
 * Negatives: items without the tag, some from the sections of the person's history so that section
 * alone does not give the pick away.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "deploy/demo/search.h"

#define QUERIES_PER_PERSON 6
#define OWN_GRADE          3
#define MATCH_GRADE        1

/* Facets that say what an item is for; the others say how it is made. */
static const char *const content_facets[] = {
    "use",           "works-with", "works-with-format",
    "field",         "game",       "security",
    "network",       "web",        "mail",
    "sound",         "office",     "science",
    "biology",       "protocol",   "admin",
    "hardware",      "junior",     "privacy",
    "accessibility", "interface",  "culture",
};

static bool is_content_tag(mr_str tag)
{
    const char *colons = memchr(tag.data, ':', tag.len);
    mr_str facet = {tag.data, colons ? (size_t)(colons - tag.data) : tag.len};
    for (size_t i = 0; i + 4 <= tag.len; i++)
        if (memcmp(tag.data + i, "TODO", 4) == 0) /* "needs an extra tag" */
            return false;
    for (size_t i = 0; i < sizeof content_facets / sizeof *content_facets; i++)
        if (mr_str_equal(facet, mr_str_of(content_facets[i])))
            return true;
    return false;
}

static mr_status index_tags(demo_search *s, mr_error *err)
{
    const demo_items *items = s->in->items;
    for (size_t i = 0; i < items->n; i++) {
        const demo_ids *tags = &items->item[i].tags;
        for (size_t k = 0; k < tags->n; k++) {
            if (!is_content_tag(items->tags.name[tags->id[k]]))
                continue;
            mr_status status = demo_ids_push(&s->content[i], tags->id[k], err);
            if (status != MR_OK)
                return status;
        }
        if (s->content[i].n < 2)
            continue;
        mr_status status = demo_ids_push(&s->judged, (uint32_t)i, err);
        for (size_t k = 0; status == MR_OK && k < s->content[i].n; k++)
            status = demo_ids_push(&s->with_tag[s->content[i].id[k]], (uint32_t)i, err);
        if (status != MR_OK)
            return status;
    }
    for (size_t t = 0; t < items->tags.n; t++)
        s->usable[t] = s->with_tag[t].n >= s->in->rules.tag_items_min &&
                       s->with_tag[t].n <= s->in->rules.tag_items_max;
    return MR_OK;
}

bool demo_search_may_ask(const demo_search *s, uint32_t item, uint32_t tag)
{
    return s->content[item].n >= 2 && s->usable[tag];
}

static bool has_usable_tag(const demo_search *s, uint32_t item)
{
    for (size_t k = 0; k < s->content[item].n; k++)
        if (demo_search_may_ask(s, item, s->content[item].id[k]))
            return true;
    return false;
}

/* Half of the time the rarest usable tag of the item, else any. */
static uint32_t choose_tag(const demo_search *s, uint32_t item, mr_rng *rng)
{
    uint32_t usable[256];
    size_t n = 0;
    uint32_t rarest = DEMO_NONE;
    for (size_t k = 0; k < s->content[item].n && n < 256; k++) {
        uint32_t tag = s->content[item].id[k];
        if (!s->usable[tag])
            continue;
        usable[n++] = tag;
        if (rarest == DEMO_NONE || s->with_tag[tag].n < s->with_tag[rarest].n)
            rarest = tag;
    }
    return mr_rng_uniform(rng) < 0.5 ? rarest : usable[mr_rng_below(rng, n)];
}

/* What a cold training query may know of a person are train items; a test person's history is an
 * input that nothing was trained on. */
static mr_status fill_history(demo_search *s, const demo_person *person, uint32_t own,
                              demo_scope scope, mr_rng *rng, mr_error *err)
{
    s->history.n = 0;
    for (size_t i = 0; i < person->basket.n; i++) {
        uint32_t item = person->basket.id[i];
        if (item == own || (scope == DEMO_TRAIN_ITEMS && !demo_in_scope(s->in->items, item, scope)))
            continue;
        mr_status status = demo_ids_push(&s->history, item, err);
        if (status != MR_OK)
            return status;
    }
    if (s->history.n > DEMO_HISTORY_MAX) {
        demo_ids_shuffle(&s->history, rng);
        s->history.n = DEMO_HISTORY_MAX;
        demo_ids_sort(&s->history);
    }
    return MR_OK;
}

/* The judged items in scope that have the tag or have it not, shuffled, into pool. The person's own
 * items are marked as taken already. */
static mr_status fill_pool(demo_search *s, uint32_t tag, bool with, demo_scope scope, mr_rng *rng,
                           mr_error *err)
{
    const demo_ids *from = s->drawn_from ? s->drawn_from : with ? &s->with_tag[tag] : &s->judged;
    s->pool.n = 0;
    for (size_t i = 0; i < from->n; i++) {
        uint32_t item = from->id[i];
        if (s->taken[item] || s->has_tag[item] != with || !demo_in_scope(s->in->items, item, scope))
            continue;
        mr_status status = demo_ids_push(&s->pool, item, err);
        if (status != MR_OK)
            return status;
    }
    demo_ids_shuffle(&s->pool, rng);
    return MR_OK;
}

/* Moves the pool's items of the history's sections to its front, order kept within both parts. */
static mr_status near_to_front(demo_search *s, size_t *near, mr_error *err)
{
    const demo_item *item = s->in->items->item;
    mr_status status = MR_OK;
    s->rest.n = *near = 0;
    for (size_t h = 0; h < s->history.n; h++)
        s->near[item[s->history.id[h]].section] = 1;
    for (size_t i = 0; i < s->pool.n && status == MR_OK; i++) {
        if (s->near[item[s->pool.id[i]].section])
            s->pool.id[(*near)++] = s->pool.id[i];
        else
            status = demo_ids_push(&s->rest, s->pool.id[i], err);
    }
    for (size_t h = 0; h < s->history.n; h++)
        s->near[item[s->history.id[h]].section] = 0;
    if (status == MR_OK && s->rest.n)
        memcpy(s->pool.id + *near, s->rest.id, s->rest.n * sizeof *s->rest.id);
    return status;
}

/* The tag's words: "Bitmaps, Vectors" is a list, not a sentence. */
static mr_str query_words(demo_search *s, uint32_t tag)
{
    mr_str words = s->in->items->tag_words[tag];
    mr_strbuf_clear(&s->words);
    for (size_t i = 0; i < words.len; i++) {
        char c = words.data[i] == ',' ? ' ' : words.data[i];
        if (c == ' ' && (s->words.len == 0 || s->words.data[s->words.len - 1] == ' '))
            continue;
        mr_strbuf_append(&s->words, &c, 1);
    }
    return (mr_str){s->words.data ? s->words.data : "", s->words.len};
}

static mr_status negatives(demo_search *s, uint32_t tag, demo_scope scope, mr_rng *rng,
                           mr_error *err)
{
    size_t near = 0;
    mr_status status = fill_pool(s, tag, false, scope, rng, err);
    if (status == MR_OK)
        status = near_to_front(s, &near, err);
    size_t room = s->in->rules.candidates - s->candidates.n;
    size_t near_wanted = near < s->in->rules.near_max ? near : s->in->rules.near_max;
    if (near_wanted > room)
        near_wanted = room;
    if (status == MR_OK)
        status = demo_take(&s->candidates, &s->pool, near_wanted, s->taken, err);
    demo_ids_shuffle(&s->pool, rng);
    if (status == MR_OK)
        status = demo_take(&s->candidates, &s->pool, s->in->rules.candidates - s->candidates.n,
                           s->taken, err);
    return status;
}

static mr_status put_query(demo_search *s, const demo_person *person, uint32_t own, uint32_t tag,
                           mr_error *err)
{
    demo_query query = {
        .task = s->task,
        .split = person->fold,
        .text = query_words(s, tag),
        .person = person,
        .history = &s->history,
        .candidates = &s->candidates,
        .relevant = &s->relevant,
        .grade = s->grade,
        .same_family = demo_same_family(s->in->items, &s->history, own),
    };
    if (s->words.failed)
        return MR_FAIL(err, NO_MEMORY, "the words of a query");
    demo_ids *asked = &s->asked[person - s->in->people->person];
    mr_status status = demo_ids_push(asked, own, err);
    if (status == MR_OK)
        status = demo_ids_push(asked, tag, err);
    return status == MR_OK ? s->sink->put(s->sink, &query, err) : status;
}

/* The own item, others with the tag, others without; nothing when too few have the tag. */
static mr_status fill_list(demo_search *s, uint32_t own, uint32_t tag, demo_scope scope,
                           mr_rng *rng, mr_error *err)
{
    const demo_rules *rules = &s->in->rules;
    s->candidates.n = s->relevant.n = 0;
    mr_status status = fill_pool(s, tag, true, scope, rng, err);
    if (status == MR_OK)
        status = demo_ids_push(&s->candidates, own, err);
    if (status == MR_OK)
        status = demo_take(&s->candidates, &s->pool, rules->matches_max, s->taken, err);
    for (size_t i = 0; status == MR_OK && i < s->candidates.n; i++) {
        s->grade[i] = i == 0 ? OWN_GRADE : MATCH_GRADE;
        status = demo_ids_push(&s->relevant, s->candidates.id[i], err);
    }
    if (status == MR_OK && s->candidates.n > s->matches_min)
        return negatives(s, tag, scope, rng, err);
    for (size_t i = 0; i < s->candidates.n; i++)
        s->taken[s->candidates.id[i]] = 0;
    s->candidates.n = 0;
    return status;
}

mr_status demo_search_ask(demo_search *s, const demo_person *person, uint32_t own, uint32_t tag,
                          demo_scope scope, mr_rng *rng, mr_error *err)
{
    mr_status status = fill_history(s, person, own, scope, rng, err);
    if (status != MR_OK || s->history.n < DEMO_HISTORY_MIN)
        return status;

    for (size_t i = 0; i < person->basket.n; i++)
        s->taken[person->basket.id[i]] = 1;
    for (size_t i = 0; i < s->with_tag[tag].n; i++)
        s->has_tag[s->with_tag[tag].id[i]] = 1;
    status = fill_list(s, own, tag, scope, rng, err);
    for (size_t i = 0; i < s->candidates.n; i++)
        s->taken[s->candidates.id[i]] = 0;
    for (size_t i = 0; i < s->with_tag[tag].n; i++)
        s->has_tag[s->with_tag[tag].id[i]] = 0;
    for (size_t i = 0; i < person->basket.n; i++)
        s->taken[person->basket.id[i]] = 0;
    if (status != MR_OK || s->candidates.n == 0)
        return status;
    demo_ids_shuffle(&s->candidates, rng);
    return put_query(s, person, own, tag, err);
}

static mr_status ask_person(demo_search *s, const demo_person *person, demo_scope scope,
                            mr_error *err)
{
    mr_rng rng = demo_seed(s->task, person->key);
    demo_ids picks = {0};
    mr_status status = MR_OK;
    for (size_t i = 0; i < person->basket.n && status == MR_OK; i++) {
        uint32_t item = person->basket.id[i];
        if (has_usable_tag(s, item) && demo_in_scope(s->in->items, item, scope))
            status = demo_ids_push(&picks, item, err);
    }
    demo_ids_shuffle(&picks, &rng);
    for (size_t i = 0; i < picks.n && i < QUERIES_PER_PERSON && status == MR_OK; i++) {
        uint32_t tag = choose_tag(s, picks.id[i], &rng);
        status = demo_search_ask(s, person, picks.id[i], tag, scope, &rng, err);
    }
    demo_ids_done(&picks);
    return status;
}

static void search_done(demo_search *s, demo_ids *asked[2])
{
    for (size_t i = 0; s->content && i < s->in->items->n; i++)
        demo_ids_done(&s->content[i]);
    for (size_t i = 0; s->with_tag && i < s->in->items->tags.n; i++)
        demo_ids_done(&s->with_tag[i]);
    for (int cold = 0; cold < 2; cold++) {
        for (size_t p = 0; asked[cold] && p < s->in->people->n; p++)
            demo_ids_done(&asked[cold][p]);
        free(asked[cold]);
    }
    free(s->content);
    free(s->with_tag);
    free(s->usable);
    free(s->taken);
    free(s->has_tag);
    free(s->near);
    free(s->grade);
    demo_ids_done(&s->judged);
    demo_ids_done(&s->pool);
    demo_ids_done(&s->candidates);
    demo_ids_done(&s->history);
    demo_ids_done(&s->relevant);
    demo_ids_done(&s->rest);
    mr_strbuf_release(&s->words);
}

mr_status demo_tasks_search(const demo_task_input *input, mr_error *err)
{
    size_t n_items = input->items->n, n_tags = input->items->tags.n, n_people = input->people->n;
    demo_search s = {.in = input, .sink = input->sink};
    demo_ids *asked[2] = {calloc(n_people + 1, sizeof **asked),
                          calloc(n_people + 1, sizeof **asked)};
    mr_status status = MR_OK;
    s.content = calloc(n_items + 1, sizeof *s.content);
    s.with_tag = calloc(n_tags + 1, sizeof *s.with_tag);
    s.usable = calloc(n_tags + 1, sizeof *s.usable);
    s.taken = calloc(n_items + 1, sizeof *s.taken);
    s.has_tag = calloc(n_items + 1, sizeof *s.has_tag);
    s.near = calloc(input->items->sections.n + 1, sizeof *s.near);
    s.grade = calloc(input->rules.candidates + 1, sizeof *s.grade);
    if (!s.content || !s.with_tag || !s.usable || !s.taken || !s.has_tag || !s.near || !s.grade ||
        !asked[0] || !asked[1]) {
        status = MR_FAIL(err, NO_MEMORY, "tables of %zu items, %zu tags and %zu people", n_items,
                         n_tags, n_people);
        goto out;
    }
    status = index_tags(&s, err);
    for (int cold = 0; cold < 2 && status == MR_OK; cold++) {
        s.task = cold ? DEMO_E1_COLD : DEMO_E1;
        s.asked = asked[cold];
        s.matches_min = cold ? input->rules.cold_matches_min : input->rules.matches_min;
        for (size_t p = 0; p < n_people && status == MR_OK; p++) {
            const demo_person *person = &input->people->person[p];
            if (person->basket.n >= input->rules.search_basket)
                status = ask_person(&s, person,
                                    cold ? demo_cold_scope(person->fold) : DEMO_ANY_ITEM, err);
        }
    }
    if (status == MR_OK && input->lists)
        status = demo_search_lists(&s, asked, err);

out:
    search_done(&s, asked);
    return status;
}
