/* training.c - see training.h. The lists here; texts and pairs in texts.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "deploy/demo/training.h"

#include <stdio.h>

#include "deploy/demo/rows.h"

const char *const demo_training_files[DEMO_TRAINING_FILES] = {"texts.jsonl", "pairs.jsonl",
                                                              "training_lists.jsonl"};

/* One grade for each candidate, in their order: what a loss over a list wants. */
static json_t *grades_of(const demo_query *query)
{
    json_t *grades = json_array();
    for (size_t i = 0; i < query->candidates->n; i++) {
        int grade = 0;
        for (size_t k = 0; k < query->relevant->n; k++)
            if (query->relevant->id[k] == query->candidates->id[i])
                grade = query->grade[k];
        json_array_append_new(grades, json_integer(grade));
    }
    return grades;
}

static mr_status list_put(demo_sink *sink, const demo_query *query, mr_error *err)
{
    demo_training *training = (demo_training *)sink;
    size_t *n = &training->n_lists[query->task - DEMO_TASKS];
    char id[64];
    snprintf(id, sizeof id, "%s-%05zu", demo_task_name(query->task), ++*n);
    bool failed = false;
    json_t *row = demo_row_query(id, query, training->items, &failed);
    json_t *grades = grades_of(query);
    failed |= json_array_size(grades) != query->candidates->n ||
              json_object_set(row, "grades", grades) != 0;
    json_decref(grades);
    return demo_row_write(training->lists.stream, row, failed, demo_training_files[2], err);
}

mr_status demo_training_open(demo_training *out, const char *folder, const demo_items *items,
                             mr_error *err)
{
    *out = (demo_training){.sink = {list_put}, .folder = folder, .items = items};
    return demo_writer_open(&out->lists, folder, demo_training_files[2], err);
}

mr_status demo_training_finish(demo_training *training, mr_error *err)
{
    return mr_file_writer_commit(&training->lists, err);
}

void demo_training_abandon(demo_training *training)
{
    mr_file_writer_abandon(&training->lists);
}

json_t *demo_training_counts(const demo_training *training)
{
    const demo_text_counts *texts = &training->texts;
    const demo_pair_counts *pairs = &training->pairs;
    json_t *lists = json_object();
    for (int t = DEMO_TASKS; t < DEMO_LISTS_END; t++)
        json_object_set_new(lists, demo_task_name((demo_task)t),
                            json_integer((json_int_t)training->n_lists[t - DEMO_TASKS]));
    return json_pack("{s:{s:I, s:I, s:I}, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I}, s:o}", "texts",
                     "rows", (json_int_t)texts->rows, "repeated", (json_int_t)texts->repeated,
                     "addressed", (json_int_t)texts->addressed, "pairs", "rows",
                     (json_int_t)pairs->rows, "of_test_items", (json_int_t)pairs->of_test_items,
                     "of_valid_items", (json_int_t)pairs->of_valid_items, "short_query",
                     (json_int_t)pairs->short_query, "addressed", (json_int_t)pairs->addressed,
                     "like_held_out", (json_int_t)pairs->like_held_out, "repeated",
                     (json_int_t)pairs->repeated, "lists", lists);
}
