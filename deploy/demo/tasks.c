/* tasks.c - what the tasks share; see tasks.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "deploy/demo/tasks.h"

#include <string.h>

#include "core/hash.h"

const demo_rules demo_rules_default = {
    .candidates = 100,
    .search_basket = 6,
    .basket = 8,
    .tag_items_min = 15,
    .tag_items_max = 600,
    .matches_min = 12,
    .cold_matches_min = 5,
    .matches_max = 29,
    .near_max = 35,
    .category_items_min = 5,
    .lists_per_person = 80,
};

const char *demo_task_name(demo_task task)
{
    static const char *const name[DEMO_LISTS_END] = {
        [DEMO_E1] = "E1",
        [DEMO_E1_COLD] = "E1-cold",
        [DEMO_D1] = "D1",
        [DEMO_D1_COLD] = "D1-cold",
        [DEMO_C] = "C",
        [DEMO_C_ALL] = "C-all",
        [DEMO_B1_ALL] = "B1-all",
        [DEMO_B3] = "B3",
        [DEMO_B4] = "B4",
        [DEMO_E1_MORE] = "E1-more",
        [DEMO_E1_COLD_MORE] = "E1-cold-more",
    };
    return name[task];
}

bool demo_in_scope(const demo_items *items, uint32_t item, demo_scope scope)
{
    return scope == DEMO_ANY_ITEM ||
           (items->item[item].fold == DEMO_TEST) == (scope == DEMO_TEST_ITEMS);
}

demo_scope demo_cold_scope(demo_fold fold)
{
    return fold == DEMO_TEST ? DEMO_TEST_ITEMS : DEMO_TRAIN_ITEMS;
}

mr_rng demo_seed(demo_task task, uint64_t key)
{
    uint8_t bytes[16];
    mr_store_u64le(bytes, (uint64_t)task + 1);
    mr_store_u64le(bytes + 8, key);
    return mr_rng_seed(mr_hash_xxh3(bytes, sizeof bytes));
}

uint64_t demo_text_key(mr_str text)
{
    return mr_hash_xxh3(text.data, text.len);
}

mr_status demo_take(demo_ids *to, const demo_ids *from, size_t n, uint8_t *taken, mr_error *err)
{
    size_t added = 0;
    for (size_t i = 0; i < from->n && added < n; i++) {
        uint32_t item = from->id[i];
        if (taken[item])
            continue;
        mr_status status = demo_ids_push(to, item, err);
        if (status != MR_OK)
            return status;
        taken[item] = 1;
        added++;
    }
    return MR_OK;
}

static mr_str first_part(mr_str id)
{
    size_t len = 0;
    while (len < id.len && !strchr("-.0123456789", id.data[len]))
        len++;
    return (mr_str){id.data, len};
}

bool demo_same_family(const demo_items *items, const demo_ids *history, uint32_t item)
{
    mr_str family = first_part(items->item[item].id);
    for (size_t i = 0; i < history->n; i++)
        if (mr_str_equal(first_part(items->item[history->id[i]].id), family))
            return true;
    return false;
}

mr_status demo_tasks_make(const demo_task_input *input, mr_error *err)
{
    if (input->rules.matches_max + 1 >= input->rules.candidates)
        return MR_FAIL(err, INVALID, "%zu matches do not fit among %zu candidates with a negative",
                       input->rules.matches_max, input->rules.candidates);
    mr_status status = demo_tasks_search(input, err);
    if (status == MR_OK)
        status = demo_tasks_baskets(input, err);
    if (status == MR_OK)
        status = demo_tasks_items(input, err);
    if (status == MR_OK)
        status = demo_tasks_words(input, err);
    return status;
}
