/* tasks_items.c - items.jsonl. See tasks.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>

#include "core/jsonl.h"
#include "ranker/model/tasks_private.h"

static mr_status read_fields(mr_tasks *tasks, const json_t *row, mr_fields *out, mr_error *err)
{
    size_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)row, key, value) n +=
        json_is_string(value) && strcmp(key, "id") != 0;
    mr_field *field = mr_arena_array(&tasks->arena, mr_field, n);
    if (!field)
        return MR_FAIL(err, NO_MEMORY, "%zu items", tasks->item_ids.n);
    n = 0;
    json_object_foreach((json_t *)(uintptr_t)row, key, value)
    {
        if (!json_is_string(value) || strcmp(key, "id") == 0)
            continue;
        const size_t key_len = strlen(key), len = json_string_length(value);
        const char *name = mr_arena_strndup(&tasks->arena, key, key_len);
        const char *text = mr_arena_strndup(&tasks->arena, json_string_value(value), len);
        if (!name || !text)
            return MR_FAIL(err, NO_MEMORY, "%zu items", tasks->item_ids.n);
        field[n++] = (mr_field){{name, key_len}, {text, len}};
    }
    *out = (mr_fields){field, n};
    return MR_OK;
}

static mr_status read_item(void *context, const json_t *row, uint64_t line, mr_error *err)
{
    (void)line;
    mr_tasks *tasks = context;
    const json_t *id = json_object_get(row, "id");
    if (!json_is_string(id) || json_string_length(id) == 0)
        return MR_FAIL(err, INVALID, "'id' is %s, expected the item's id",
                       id ? mr_json_describe(id) : "missing");
    const mr_str name = {json_string_value(id), json_string_length(id)};
    uint32_t number;
    bool is_new;
    mr_status status = mr_intern_add(&tasks->item_ids, name, &number, &is_new, err);
    if (status != MR_OK)
        return status;
    if (!is_new)
        return MR_FAIL(err, INVALID, "item '%.*s' is there twice", MR_STR_ARG(name));
    if (tasks->item_ids.n > tasks->item_capacity) {
        const size_t capacity = tasks->item_capacity ? 2 * tasks->item_capacity : 1024;
        mr_item *item = realloc(tasks->item, capacity * sizeof *item);
        if (!item)
            return MR_FAIL(err, NO_MEMORY, "%zu items", tasks->item_ids.n);
        tasks->item = item;
        tasks->item_capacity = capacity;
    }
    tasks->item[number] = (mr_item){.id = tasks->item_ids.name[number]};
    return read_fields(tasks, row, &tasks->item[number].fields, err);
}

mr_status mr_tasks_read_items(mr_tasks *tasks, const char *path, mr_error *err)
{
    uint64_t line;
    mr_status status = mr_jsonl_each(path, MR_JSONL_MAX_LINE, read_item, tasks, &line, err);
    if (line)
        return mr_error_prefix(err, status, "line %" PRIu64 " of %s", line, path);
    if (status == MR_OK && tasks->item_ids.n == 0)
        status = MR_FAIL(err, INVALID, "%s has no items", path);
    return status;
}
