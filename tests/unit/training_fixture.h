/* training_fixture.h - a small world to train in: a catalogue with folds, texts, pairs, a
 * tokenizer, bundle.json files, and recipes over them. Include after cmocka.h.
 *
 * 30 items of 5 topics, two of each of fold test. 12 people: 7 of fold
 * train, 2 valid, 3 test; each likes one topic and holds items of every fold. Rows of split train
 * and valid name items of fold train alone; rows of split test name what nobody may learn from.
 *
 *     char *folder = world_new();
 *     mr_recipe *recipe = world_recipe(folder, "stage: ...", ...);         @ stands for the folder
 *     train_ok(recipe, test_path(folder, "out"), (run_options){.threads = 2});
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_UNIT_TRAINING_FIXTURE_H
#define MR_TESTS_UNIT_TRAINING_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/file.h"
#include "core/rng.h"
#include "core/strbuf.h"
#include "ranker/training/trainer.h"
#include "tests/support.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define N_ITEMS  30
#define N_USERS  12
#define N_TOPICS 5
#define PAIRS    88 /* of a topic: 55 blocks, one of which is the valid split */

static const char *const topic_words[N_TOPICS][6] = {
    {"red", "paint", "brush", "canvas", "colour", "frame"},
    {"fast", "engine", "wheel", "motor", "road", "brake"},
    {"green", "leaf", "garden", "plant", "seed", "root"},
    {"loud", "music", "drum", "song", "tune", "chord"},
    {"safe", "lock", "key", "cipher", "secret", "guard"}};

/* ---- Writing --------------------------------------------------------------------------------- */

static inline void write_text(const char *folder, const char *name, mr_strbuf *text)
{
    assert_false(text->failed);
    test_file_write(test_path(folder, name), text->data ? text->data : "", text->len);
    mr_strbuf_release(text);
}

/* ' becomes ". */
static inline void write_json(const char *folder, const char *name, const char *text)
{
    mr_strbuf out = {0};
    mr_strbuf_puts(&out, text);
    for (size_t i = 0; i < out.len; i++)
        if (out.data[i] == '\'')
            out.data[i] = '"';
    write_text(folder, name, &out);
}

static inline void put_words(mr_strbuf *out, int topic, int n, mr_rng *rng)
{
    for (int i = 0; i < n; i++)
        mr_strbuf_printf(out, "%s%s", i ? " " : "", topic_words[topic][mr_rng_below(rng, 6)]);
}

static inline bool item_is_test(int item)
{
    return item % 3 == 2;
}

static inline int topic_of(int item)
{
    return item % N_TOPICS;
}

static inline const char *fold_of(int user)
{
    return user < 7 ? "train" : user < 9 ? "valid" : "test";
}

static inline void write_items(const char *folder)
{
    mr_rng rng = mr_rng_seed(1);
    mr_strbuf out = {0};
    for (int i = 0; i < N_ITEMS; i++) {
        mr_strbuf_printf(&out, "{\"id\":\"i%02d\",\"title\":\"%s %d\",\"text\":\"", i,
                         topic_words[topic_of(i)][1 + i / 6], i);
        put_words(&out, topic_of(i), 6 + i % 5, &rng);
        mr_strbuf_printf(&out, "\",\"fold\":\"%s\"}\n", item_is_test(i) ? "test" : "train");
    }
    write_text(folder, "items.jsonl", &out);
}

static inline void write_users(const char *folder)
{
    mr_strbuf out = {0};
    for (int u = 0; u < N_USERS; u++) {
        mr_strbuf_printf(&out, "{\"id\":\"u%02d\",\"fold\":\"%s\",\"history\":[", u, fold_of(u));
        int n = 0;
        for (int i = 0; i < N_ITEMS; i++)
            if (topic_of(i) == u % N_TOPICS || (i + u) % 11 == 0)
                mr_strbuf_printf(&out, "%s\"i%02d\"", n++ ? "," : "", i);
        mr_strbuf_puts(&out, "]}\n");
    }
    write_text(folder, "users.jsonl", &out);
}

/* One row: 8 candidates, two of them of the topic that is asked for. */
static inline void put_row(mr_strbuf *rows, mr_strbuf *qrels, const char *task, const char *split,
                           int number, int user, bool inline_grades, mr_rng *rng)
{
    const bool cold = strcmp(split, "test") != 0, browse = strcmp(task, "browse") == 0;
    const int topic = browse ? user % N_TOPICS : (int)mr_rng_below(rng, N_TOPICS);
    int candidate[8], n = 0;
    while (n < 8) {
        const int item = (int)mr_rng_below(rng, N_ITEMS);
        bool wrong = item_is_test(item) == cold || (topic_of(item) == topic) != (n < 2);
        for (int k = 0; k < n; k++)
            wrong |= candidate[k] == item;
        /* Of a topic there are two items of fold test, of all topics ten. */
        if (!wrong)
            candidate[n++] = item;
    }
    mr_strbuf_printf(rows, "{\"id\":\"%s-%d\",\"task\":\"%s\",\"split\":\"%s\"", task, number, task,
                     split);
    if (!browse)
        mr_strbuf_printf(rows, ",\"query\":\"%s %s\"", topic_words[topic][0],
                         topic_words[topic][1 + mr_rng_below(rng, 5)]);
    mr_strbuf_printf(rows, ",\"user\":\"u%02d\",\"history\":[", user);
    n = 0;
    for (int i = 0; i < N_ITEMS; i++) {
        bool shown = false;
        for (int k = 0; k < 8; k++)
            shown |= candidate[k] == i;
        if (topic_of(i) == user % N_TOPICS && item_is_test(i) != cold && !shown)
            mr_strbuf_printf(rows, "%s\"i%02d\"", n++ ? "," : "", i);
    }
    mr_strbuf_puts(rows, "],\"candidates\":[");
    for (int k = 0; k < 8; k++)
        mr_strbuf_printf(rows, "%s\"i%02d\"", k ? "," : "", candidate[(k + number) % 8]);
    mr_strbuf_puts(rows, inline_grades ? "],\"grades\":[" : "]");
    for (int k = 0; k < 8; k++) {
        const int at = (k + number) % 8, grade = at == 0 ? 2 : at == 1 ? 1 : 0;
        if (inline_grades)
            mr_strbuf_printf(rows, "%s%d", k ? "," : "", grade);
        else if (grade > 0)
            mr_strbuf_printf(qrels, "%s-%d 0 i%02d %d\n", task, number, candidate[at], grade);
    }
    mr_strbuf_puts(rows, inline_grades ? "]}\n" : "}\n");
}

static inline void write_rows(const char *folder)
{
    static const struct {
        const char *task;
        int per_user;
        bool more;
    } table[] = {{"search", 4, false}, {"browse", 2, false}, {"more", 2, true}};
    mr_rng rng = mr_rng_seed(2);
    mr_strbuf rows = {0}, more = {0};
    assert_int_equal(mkdir(test_path(folder, "qrels"), 0700), 0);
    for (size_t t = 0; t < COUNT(table); t++) {
        mr_strbuf qrels = {0};
        int number = 0;
        for (int u = 0; u < N_USERS; u++)
            for (int k = 0; k < table[t].per_user; k++)
                put_row(table[t].more ? &more : &rows, &qrels, table[t].task, fold_of(u), number++,
                        u, table[t].more, &rng);
        if (!table[t].more) {
            char name[32];
            snprintf(name, sizeof name, "qrels/%s.txt", table[t].task);
            write_text(folder, name, &qrels);
        }
    }
    write_text(folder, "queries.jsonl", &rows);
    write_text(folder, "more.jsonl", &more);
}

static inline void write_texts(const char *folder)
{
    mr_rng rng = mr_rng_seed(3);
    mr_strbuf texts = {0}, pairs = {0};
    for (int i = 0; i < 300; i++) {
        mr_strbuf_puts(&texts, "{\"text\":\"");
        put_words(&texts, i % N_TOPICS, 14, &rng);
        mr_strbuf_printf(&texts, " %d\"}\n", i);
    }
    write_text(folder, "texts.jsonl", &texts);
    for (int i = 0; i < PAIRS * N_TOPICS; i++) {
        const int topic = i % N_TOPICS;
        const char *const word = topic_words[topic][1 + i / N_TOPICS % 5];
        mr_strbuf_printf(&pairs, "{\"a\":\"%s %d\",\"b\":\"%s ", word, i, word);
        put_words(&pairs, topic, 4, &rng);
        mr_strbuf_printf(&pairs, "\",\"section\":\"s%d\",\"group\":\"%d\"}\n", topic, i / 2);
    }
    write_text(folder, "pairs.jsonl", &pairs);
}

#define WORLD_ITEM_ENCODER(T, marks)                                                    \
    "'item':{'kind':'causal_last_n','path':'encoder/','tokens':" T ",'text':["          \
    "{'field':'title','max_tokens':6,'when':'title'},{'field':'text','truncate':true}," \
    "{'token':'<|t1|>'}" marks "],'max_tokens':24}"

/* What the embedding tokens of a user are worth is for the llm to learn: T tokens of 4 items. */
static const char world_bundle[] =
    "{'format':1,'name':'world','version':'1','mode':'mixed','llm':'llm/','max_length':48,"
    "'prefix':[{'token':'<|query|>'},{'field':'query','max_tokens':8,'truncate':true,'when':'query'"
    "},"
    "{'token':'<|user|>'},{'slot':'user','when':'user'}],"
    "'suffix':[{'token':'<|item|>'},{'slot':'item'},{'field':'title','max_tokens':4,"
    "'truncate':true,'when':'title'},{'token':'<|t1|>'}],"
    "'score':{'kind':'yes_no','yes':'<|yes|>','no':'<|no|>'},"
    "'encoders':{" WORLD_ITEM_ENCODER(
        "2", ",{'token':'<|t2|>'}") ","
                                    "'user':{'kind':'history','tokens':4,'order':'set'}},"
                                    "'projectors':{'item':'item_projector.safetensors','user':'"
                                    "user_projector.safetensors'}}";

/* The text side: no vectors. */
static const char world_teacher[] =
    "{'format':1,'name':'teacher','version':'1','mode':'text','llm':'llm/','max_length':64,"
    "'prefix':[{'token':'<|query|>'},{'field':'query','max_tokens':8,'truncate':true,'when':'query'"
    "}],"
    "'suffix':[{'token':'<|item|>'},{'field':'title','max_tokens':4,'when':'title'},"
    "{'field':'text','truncate':true},{'token':'<|t1|>'}],"
    "'score':{'kind':'yes_no','yes':'<|yes|>','no':'<|no|>'}}";

/* The text side of items whose users are vectors. */
static const char world_teacher_of_users[] =
    "{'format':1,'name':'teacher','version':'1','mode':'text','llm':'llm/','max_length':64,"
    "'prefix':[{'token':'<|query|>'},{'field':'query','max_tokens':8,'truncate':true,'when':'query'"
    "},"
    "{'slot':'user','when':'user'}],"
    "'suffix':[{'token':'<|item|>'},{'field':'text','truncate':true},{'token':'<|t1|>'}],"
    "'score':{'kind':'yes_no','yes':'<|yes|>','no':'<|no|>'}}";

/* ---- Recipes --------------------------------------------------------------------------------- */

/* Parses text with every @ replaced by the folder. */
static inline mr_status world_parse(const char *folder, const char *text, mr_recipe **out,
                                    mr_error *err)
{
    mr_strbuf yaml = {0};
    for (const char *p = text; *p; p++) {
        if (*p == '@')
            mr_strbuf_puts(&yaml, folder);
        else
            mr_strbuf_printf(&yaml, "%c", *p);
    }
    mr_status status = mr_recipe_parse(out, "recipe.yaml", yaml.data, yaml.len, err);
    mr_strbuf_release(&yaml);
    return status;
}

/* Up to six pieces of text, one after the other; NULL ends them. */
static inline mr_recipe *world_recipe_of(const char *folder, const char *const *pieces)
{
    mr_strbuf text = {0};
    mr_recipe *recipe = NULL;
    mr_error err = {0};
    for (; *pieces; pieces++)
        mr_strbuf_puts(&text, *pieces);
    assert_false(text.failed);
    assert_status(world_parse(folder, text.data, &recipe, &err), MR_OK, &err);
    mr_strbuf_release(&text);
    return recipe;
}
#define world_recipe(folder, ...) \
    world_recipe_of((folder), (const char *const[]){__VA_ARGS__, NULL})

#define WORLD_SHAPE "layers: 2, width: 16, heads: 2, kv_heads: 1, ffn: 24"

static const char recipe_bpe[] =
    "stage: bpe\n"
    "data: {texts: ['@/texts.jsonl', '@/items.jsonl']}\n"
    "vocabulary: 340\n"
    "special: ['<|endoftext|>', '<|yes|>', '<|no|>', '<|query|>', '<|user|>', '<|item|>',"
    " '<|t1|>', '<|t2|>']\n";

static const char recipe_next_token[] = "stage: next_token\n"
                                        "seed: 5\n"
                                        "tokenizer: '@/tok'\n"
                                        "parts: [{name: llm, new: decoder, " WORLD_SHAPE "}]\n"
                                        "data: {texts: ['@/texts.jsonl']}\n"
                                        "max_tokens: 16\n";

static const char recipe_contrastive[] =
    "stage: contrastive\n"
    "seed: 6\n"
    "tokenizer: '@/tok'\n"
    "bundle: '@/bundle.json'\n"
    "parts: [{name: encoder, new: decoder, " WORLD_SHAPE "}]\n"
    "data:\n"
    "  pairs: ['@/pairs.jsonl']\n"
    "  items: '@/items.jsonl'\n"
    "  users: '@/users.jsonl'\n"
    "  users_weight: 0.5\n"
    "  lists: [{file: '@/queries.jsonl', tasks: [search], weight: 0.5}]\n"
    "max_tokens: 24\n";

#define RECIPE_RANK(bundle)                                      \
    "stage: rank\n"                                              \
    "seed: 7\n"                                                  \
    "tokenizer: '@/tok'\n"                                       \
    "bundle: '@/" bundle ".json'\n"                              \
    "candidates: 6\n"                                            \
    "history: 4\n"                                               \
    "data:\n"                                                    \
    "  items: '@/items.jsonl'\n"                                 \
    "  users: '@/users.jsonl'\n"                                 \
    "  lists:\n"                                                 \
    "    - {file: '@/queries.jsonl', tasks: [search, browse]}\n" \
    "    - {file: '@/more.jsonl', tasks: [more], weight: 0.5}\n"

/* Needs world_decoders(). */
static const char rank_parts[] = "parts:\n"
                                 "  - {name: llm, from: '@/lm/llm'}\n"
                                 "  - {name: encoder, from: '@/enc/encoder'}\n"
                                 "  - {name: item_projector, new: linear, scale: 4}\n"
                                 "  - {name: user_projector, new: mlp}\n";
static const char rank_teacher[] = "  - {name: teacher, from: '@/lm/llm'}\n"
                                   "teacher: '@/teacher.json'\n";

/* ---- Runs ------------------------------------------------------------------------------------ */

typedef struct {
    int threads;
    bool fresh;
    int64_t stop_step;
    void (*report)(void *context, const mr_train_progress *progress);
    void *report_context;
} run_options;

static inline mr_status train(const mr_recipe *recipe, const char *out, run_options run,
                              mr_train_summary *summary, mr_error *err)
{
    char path[1024]; /* of test_path's few buffers others may follow */
    snprintf(path, sizeof path, "%s", out);
    const mr_train_options opt = {.out = path,
                                  .threads = run.threads ? run.threads : 1,
                                  .fresh = run.fresh,
                                  .stop_step = run.stop_step,
                                  .report = run.report,
                                  .report_context = run.report_context};
    return mr_train_run(recipe, &opt, summary, err);
}

static inline mr_train_summary train_ok(const mr_recipe *recipe, const char *out, run_options run)
{
    mr_train_summary summary = {0};
    mr_error err = {0};
    assert_status(train(recipe, out, run, &summary, &err), MR_OK, &err);
    return summary;
}

/* ---- The world ------------------------------------------------------------------------------- */

static inline char *world_new(void)
{
    char *folder = test_folder_new();
    write_items(folder);
    write_users(folder);
    write_rows(folder);
    write_texts(folder);
    write_json(folder, "bundle.json", world_bundle);
    write_json(folder, "teacher.json", world_teacher);
    write_json(folder, "teacher_of_users.json", world_teacher_of_users);
    mr_recipe *recipe = world_recipe(folder, recipe_bpe);
    train_ok(recipe, test_path(folder, "tok"), (run_options){0});
    mr_recipe_free(recipe);
    return folder;
}

/* lm/llm and enc/encoder: a few steps each, so that nothing is as it was drawn. */
static inline void world_decoders(const char *folder)
{
    static const char few[] = "steps: 12\nbatch: 4\noptimizer: {rate: 1e-2}\n";
    mr_recipe *recipe = world_recipe(folder, recipe_next_token, few);
    train_ok(recipe, test_path(folder, "lm"), (run_options){0});
    mr_recipe_free(recipe);
    recipe = world_recipe(folder, recipe_contrastive, few);
    train_ok(recipe, test_path(folder, "enc"), (run_options){0});
    mr_recipe_free(recipe);
}

/* ---- Looking at runs ------------------------------------------------------------------------- */

static inline char *checkpoint_file(const char *out, int64_t step, const char *name)
{
    static char path[2048];
    snprintf(path, sizeof path, "%s/checkpoint-%08d%s%s", out, (int)step, *name ? "/" : "", name);
    return path;
}

/* The log without what the clock decides: each line up to tokens_per_s. For free(). */
static inline char *steps_of_log(const char *out)
{
    char *text = test_file_read(test_path(out, "log.jsonl"), NULL);
    char *to = text;
    for (const char *line = text; *line;) {
        const char *end = strchr(line, '\n'), *cut = strstr(line, ",\"tokens_per_s\"");
        if (!end || !cut || cut > end)
            fail_msg("no line of a log: %s", line);
        memmove(to, line, (size_t)(cut - line));
        to += cut - line;
        *to++ = '\n';
        line = end + 1;
    }
    *to = '\0';
    return text;
}

static inline bool same_bytes(const char *a, const char *b)
{
    size_t n_a, n_b;
    char *x = test_file_read(a, &n_a), *y = test_file_read(b, &n_b);
    const bool same = n_a == n_b && memcmp(x, y, n_a) == 0;
    free(x);
    free(y);
    return same;
}

static inline void assert_same_file(const char *a, const char *b)
{
    if ((mr_file_exists(a) || mr_file_exists(b)) && !same_bytes(a, b))
        fail_msg("'%s' and '%s' differ", a, b);
}

/* All that a stage may leave. */
static const char *const part_files[] = {
    "llm/model.safetensors",       "llm/config.json",        "llm/tokenizer.json",
    "encoder/model.safetensors",   "encoder/config.json",    "item_projector.safetensors",
    "user_projector.safetensors",  "user/model.safetensors", "user/config.json",
    "vision/model.safetensors",    "vision/config.json",     "vision/preprocessor_config.json",
    "image_projector.safetensors", "optimizer.safetensors"};

/* Two finished runs of so many steps: parts, moments and log. */
static inline void assert_same_run(const char *run_a, const char *run_b, int64_t steps)
{
    char a[1024], b[1024], first[2048];
    snprintf(a, sizeof a, "%s", run_a); /* they may stand in buffers of test_path */
    snprintf(b, sizeof b, "%s", run_b);
    for (size_t i = 0; i < COUNT(part_files); i++) {
        assert_same_file(test_path(a, part_files[i]), test_path(b, part_files[i]));
        snprintf(first, sizeof first, "%s", checkpoint_file(a, steps, part_files[i]));
        assert_same_file(first, checkpoint_file(b, steps, part_files[i]));
    }
    assert_true(mr_file_exists(checkpoint_file(a, steps, "optimizer.safetensors")));
    char *x = steps_of_log(a), *y = steps_of_log(b);
    assert_string_equal(x, y);
    free(x);
    free(y);
}

#endif
