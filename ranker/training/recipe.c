/* recipe.c - a recipe from YAML: what a schema cannot say is checked here, by stage.
 *
 * The tables (keys, bounds, stages) are in recipe_schema.c; text and messages of single values in
 * yaml_look.c. What is here: keys that the stage does not read, keys that need or exclude each
 * other, defaults that depend on other keys, and the digest.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/recipe.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/hash.h"
#include "core/options.h"
#include "ranker/training/recipe_schema.h"

#define NEW_DEVIATION        0.02 /* of weights, as in GPT-2 and most after it */
#define CONTRAST_TEMPERATURE 0.05 /* of cosines: as SimCSE's */

typedef struct {
    mr_recipe *recipe;
    const mr_recipe_stage *stage;
    const mr_yaml_text *text;
    mr_error *err;
} checker;

static bool has(const checker *c, const char *path)
{
    return mr_yaml_find(c->text, path) != NULL;
}

/* "recipe.yaml:3: message", of the line where the path is; without a line when it is nowhere. */
static mr_status at(const checker *c, const char *path, mr_status status)
{
    const mr_yaml_key *key = mr_yaml_find(c->text, path);
    return key ? mr_error_prefix(c->err, status, "%s:%d", c->text->name, key->line)
               : mr_error_prefix(c->err, status, "%s", c->text->name);
}
#define REFUSE(c, path, ...) at((c), (path), MR_FAIL((c)->err, INVALID, __VA_ARGS__))

/* "llm, encoder and user": the names whose bit is set. */
static void list_names(mr_strbuf *out, unsigned set, const char *const *names, size_t n)
{
    size_t left = 0, done = 0;
    for (size_t i = 0; i < n; i++)
        left += (set >> i) & 1;
    for (size_t i = 0; i < n; i++) {
        if (!((set >> i) & 1))
            continue;
        left--;
        mr_strbuf_printf(out, "%s%s", done++ == 0 ? "" : left ? ", " : " and ", names[i]);
    }
}

/* Whether path is key itself or below it. */
static bool is_below(const char *path, const char *key)
{
    const size_t n = strlen(key);
    return strncmp(path, key, n) == 0 && (path[n] == '\0' || path[n] == '.' || path[n] == '[');
}

static mr_status check_readers(const checker *c)
{
    const unsigned stage = MR_BIT(c->recipe->stage);
    for (size_t i = 0; i < c->text->n; i++) {
        const char *path = c->text->key[i].path;
        const mr_recipe_reader *reader = mr_recipe_readers;
        while (reader->path && !is_below(path, reader->path))
            reader++;
        if (!reader->path || (reader->stages & stage))
            continue;
        const char *names[MR_STAGE_COUNT];
        for (size_t s = 0; s < MR_STAGE_COUNT; s++)
            names[s] = mr_recipe_stages[s].name;
        mr_strbuf who = {0};
        list_names(&who, reader->stages, names, MR_STAGE_COUNT);
        mr_status status =
            REFUSE(c, path, "stage %s does not read '%s', which is for %s; take it out",
                   c->stage->name, path, who.data ? who.data : "others");
        mr_strbuf_release(&who);
        return status;
    }
    return MR_OK;
}

/* Whether any of "a|b" is there and not an empty list. */
static bool has_any(const checker *c, const char *keys)
{
    const mr_recipe_data *data = &c->recipe->data;
    const struct {
        const char *path;
        size_t n;
    } lists[] = {{"data.texts", data->n_texts},
                 {"data.pairs", data->n_pairs},
                 {"data.lists", data->n_lists}};
    while (*keys) {
        char path[MR_YAML_MAX_PATH];
        const size_t n = strcspn(keys, "|");
        snprintf(path, sizeof path, "%.*s", (int)n, keys);
        bool found = has(c, path);
        for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
            found = found && (strcmp(lists[i].path, path) != 0 || lists[i].n > 0);
        if (found)
            return true;
        keys += n + (keys[n] == '|');
    }
    return false;
}

static mr_status check_needed(const checker *c)
{
    for (const char *const *keys = c->stage->keys; *keys; keys++) {
        if (has_any(c, *keys))
            continue;
        char names[MR_YAML_MAX_PATH];
        size_t n = 0;
        for (const char *p = *keys; *p && n + 5 < sizeof names; p++)
            n += (size_t)snprintf(names + n, sizeof names - n, *p == '|' ? " or " : "%c", *p);
        return REFUSE(c, "stage", "stage %s needs %s, which is missing or empty", c->stage->name,
                      names);
    }
    return MR_OK;
}

/* "parts[2].width" */
static const char *entry_path(char out[MR_YAML_MAX_PATH], const char *list, size_t i,
                              const char *key)
{
    snprintf(out, MR_YAML_MAX_PATH, "%s[%zu]%s%s", list, i, *key ? "." : "", key);
    return out;
}

/* What a part may be, as bits: which keys have a meaning for it. */
enum {
    NEW_DECODER = 1,
    NEW_PERCEIVER = 2,
    NEW_LINEAR = 4,
    NEW_MLP = 8,
    FILE_DECODER = 16, /* may get more layers than its file has */
    FILE_VISION = 32,
    FILE_OTHER = 64,
};

static unsigned kind_of(const mr_recipe_part *part)
{
    if (!part->made)
        return strcmp(part->name, "llm") == 0 || strcmp(part->name, "encoder") == 0 ? FILE_DECODER
               : strcmp(part->name, "vision") == 0                                  ? FILE_VISION
                                                                                    : FILE_OTHER;
    return strcmp(part->made, "decoder") == 0     ? NEW_DECODER
           : strcmp(part->made, "perceiver") == 0 ? NEW_PERCEIVER
           : strcmp(part->made, "linear") == 0    ? NEW_LINEAR
                                                  : NEW_MLP;
}

static mr_status check_shape(const checker *c, const mr_recipe_part *part, size_t index)
{
    static const struct {
        const char *key;
        unsigned read, needed;
    } rows[] = {
        {"layers", NEW_DECODER | NEW_PERCEIVER | FILE_DECODER, NEW_DECODER | NEW_PERCEIVER},
        {"width", NEW_DECODER | NEW_PERCEIVER, NEW_DECODER},
        {"heads", NEW_DECODER | NEW_PERCEIVER, NEW_DECODER | NEW_PERCEIVER},
        {"kv_heads", NEW_DECODER, 0},
        {"head_dim", NEW_DECODER, 0},
        {"ffn", NEW_DECODER | NEW_PERCEIVER, NEW_DECODER | NEW_PERCEIVER},
        {"vocab", NEW_DECODER, 0},
        {"latents", NEW_PERCEIVER, NEW_PERCEIVER},
        {"deviation", NEW_DECODER | NEW_PERCEIVER | NEW_LINEAR | NEW_MLP | FILE_DECODER, 0},
        {"share_qk", NEW_DECODER | FILE_DECODER, 0},
        {"scale", NEW_LINEAR, 0},
        {"damp", FILE_DECODER, 0},
        {"tokens", FILE_VISION, 0},
        {"feature_layer", FILE_VISION, 0},
    };
    const unsigned kind = kind_of(part);
    char path[MR_YAML_MAX_PATH];
    const bool grows = has(c, entry_path(path, "parts", index, "layers"));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        entry_path(path, "parts", index, rows[i].key);
        if (!has(c, path) && (rows[i].needed & kind))
            return REFUSE(c, "parts", "%s is missing: a new %s has no shape without it", path,
                          part->made);
        if (has(c, path) && !(rows[i].read & kind))
            return REFUSE(c, path, "%s has no effect: part '%s' %s%s", path, part->name,
                          part->made ? "is a new " : "comes from a file",
                          part->made ? part->made : "");
        if (has(c, path) && kind == FILE_DECODER && !grows)
            return REFUSE(c, path, "%s has no effect without 'layers': part '%s' comes from a file",
                          path, part->name);
    }
    return MR_OK;
}

static mr_status finish_decoder(const checker *c, mr_recipe_part *part, size_t index)
{
    char path[MR_YAML_MAX_PATH];
    if (!part->kv_heads)
        part->kv_heads = part->heads;
    entry_path(path, "parts", index, "width");
    if (!part->head_dim) {
        if (part->width % part->heads != 0)
            return REFUSE(c, path, "%s is %d, expected a multiple of heads (%d), or a head_dim",
                          path, part->width, part->heads);
        part->head_dim = part->width / part->heads;
    }
    if (part->head_dim % 2 != 0) {
        const char *from = path;
        char given[MR_YAML_MAX_PATH];
        if (has(c, entry_path(given, "parts", index, "head_dim")))
            from = given;
        return REFUSE(c, from,
                      "%s gives heads of %d, expected an even number: positions turn pairs", from,
                      part->head_dim);
    }
    entry_path(path, "parts", index, "kv_heads");
    if (part->heads % part->kv_heads != 0)
        return REFUSE(c, path, "%s is %d, expected a divisor of heads (%d)", path, part->kv_heads,
                      part->heads);
    return MR_OK;
}

/* The kinds of new parts by name; the last is NULL. */
static const char *const *new_kinds(int part)
{
    static const char *const decoder[] = {"decoder", NULL}, *const user[] = {"perceiver", NULL},
                             *const projector[] = {"linear", "mlp", NULL}, *const none[] = {NULL};
    switch (part) {
    case MR_PART_LLM:
    case MR_PART_ENCODER: return decoder;
    case MR_PART_USER: return user;
    case MR_PART_VISION:
    case MR_PART_TEACHER:
    case MR_PART_TEACHER_PROJECTOR: return none;
    default: return projector;
    }
}

static mr_status check_new(const checker *c, const mr_recipe_part *part, int name, size_t index)
{
    char path[MR_YAML_MAX_PATH], expected[64] = "";
    const char *const *kinds = new_kinds(name);
    size_t n = 0;
    for (; kinds[n]; n++) {
        if (strcmp(kinds[n], part->made) == 0)
            return MR_OK;
        const size_t len = strlen(expected);
        snprintf(expected + len, sizeof expected - len, "%s%s", n ? " or " : "", kinds[n]);
    }
    entry_path(path, "parts", index, "new");
    if (n == 0)
        return REFUSE(c, path, "%s: part '%s' cannot be new; give 'from'", path, part->name);
    return REFUSE(c, path, "%s is '%.60s', expected %s for part '%s'", path, part->made, expected,
                  part->name);
}

static mr_status check_part(const checker *c, size_t i, unsigned *found)
{
    mr_recipe_part *part = &c->recipe->part[i];
    char path[MR_YAML_MAX_PATH];
    entry_path(path, "parts", i, "name");
    int name = 0;
    while (name < MR_PART_COUNT && strcmp(mr_recipe_part_names[name], part->name) != 0)
        name++;
    if (name == MR_PART_COUNT || !(c->stage->parts & MR_BIT(name))) {
        mr_strbuf list = {0};
        list_names(&list, c->stage->parts, mr_recipe_part_names, MR_PART_COUNT);
        const char *near = mr_nearest_name(part->name, mr_recipe_part_names, MR_PART_COUNT);
        const bool suggest = name == MR_PART_COUNT && near;
        mr_status status =
            REFUSE(c, path, "%s is '%.60s'; parts of stage %s are %s%s%s%s", path, part->name,
                   c->stage->name, list.data ? list.data : "others",
                   suggest ? "; did you mean '" : "", suggest ? near : "", suggest ? "'?" : "");
        mr_strbuf_release(&list);
        return status;
    }
    if (*found & MR_BIT(name))
        return REFUSE(c, path, "%s: part '%s' is there twice", path, part->name);
    *found |= MR_BIT(name);
    if (!part->from == !part->made)
        return REFUSE(c, path, "%s: part '%s' has %s, expected one of them", path, part->name,
                      part->from ? "both 'from' and 'new'" : "neither 'from' nor 'new'");
    mr_status status = part->made ? check_new(c, part, name, i) : MR_OK;
    if (status == MR_OK)
        status = check_shape(c, part, i);
    if (status == MR_OK && part->made && strcmp(part->made, "decoder") == 0)
        status = finish_decoder(c, part, i);
    const bool projector = strstr(part->name, "projector") != NULL;
    if (part->made && !projector && !(part->deviation > 0))
        part->deviation = NEW_DEVIATION;
    return status;
}

static mr_status check_parts(const checker *c)
{
    unsigned found = 0;
    mr_status status = MR_OK;
    for (size_t i = 0; status == MR_OK && i < c->recipe->n_parts; i++)
        status = check_part(c, i, &found);
    if (status != MR_OK || (c->stage->needed & ~found) == 0)
        return status;
    mr_strbuf list = {0};
    list_names(&list, c->stage->needed & ~found, mr_recipe_part_names, MR_PART_COUNT);
    status = REFUSE(c, has(c, "parts") ? "parts" : "stage", "stage %s needs parts: %s missing",
                    c->stage->name, list.data ? list.data : "some are");
    mr_strbuf_release(&list);
    return status;
}

static void finish_loss(mr_recipe_loss *loss)
{
    const bool contrasts = loss->kind == MR_LOSS_INFO_NCE || loss->kind == MR_LOSS_SAMPLED_SOFTMAX;
    if (isnan(loss->weight_late))
        loss->weight_late = loss->weight;
    if (isnan(loss->temperature))
        loss->temperature = contrasts ? CONTRAST_TEMPERATURE : 1;
}

static mr_status check_loss(const checker *c, size_t i, unsigned *found)
{
    static const unsigned warm =
        MR_BIT(MR_LOSS_INFO_NCE) | MR_BIT(MR_LOSS_DISTILL) | MR_BIT(MR_LOSS_SAMPLED_SOFTMAX);
    const struct {
        const char *key;
        unsigned losses;
    } rows[] = {
        {"temperature", warm}, {"alpha", MR_BIT(MR_LOSS_ALIGN)}, {"beta", MR_BIT(MR_LOSS_ALIGN)}};
    mr_recipe_loss *loss = &c->recipe->loss[i];
    const char *name = mr_loss_name(loss->kind);
    char path[MR_YAML_MAX_PATH];
    entry_path(path, "losses", i, "kind");
    if (!(c->stage->losses & MR_BIT(loss->kind))) {
        mr_strbuf list = {0};
        list_names(&list, c->stage->losses, mr_recipe_loss_names, MR_LOSS_COUNT);
        mr_status status = REFUSE(c, path, "%s is '%s'; losses of stage %s are %s", path, name,
                                  c->stage->name, list.data ? list.data : "others");
        mr_strbuf_release(&list);
        return status;
    }
    if (*found & MR_BIT(loss->kind))
        return REFUSE(c, path, "%s: loss '%s' is there twice", path, name);
    *found |= MR_BIT(loss->kind);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        entry_path(path, "losses", i, rows[r].key);
        if (has(c, path) && !(rows[r].losses & MR_BIT(loss->kind)))
            return REFUSE(c, path, "%s has no effect: loss '%s' has none", path, name);
    }
    entry_path(path, "losses", i, "weight_late");
    if (has(c, path) && c->recipe->second_phase >= 1)
        return REFUSE(c, path, "%s has no effect: 'second_phase' says when it begins", path);
    finish_loss(loss);
    return MR_OK;
}

/* A stage with one loss may leave it out. */
static mr_status add_only_loss(const checker *c)
{
    mr_recipe *r = c->recipe;
    int kind = 0;
    while (!(c->stage->losses & MR_BIT(kind)))
        kind++;
    if (c->stage->losses != MR_BIT(kind)) {
        mr_strbuf list = {0};
        list_names(&list, c->stage->losses, mr_recipe_loss_names, MR_LOSS_COUNT);
        mr_status status = REFUSE(c, "stage", "losses are missing; those of stage %s are %s",
                                  c->stage->name, list.data ? list.data : "some");
        mr_strbuf_release(&list);
        return status;
    }
    /* Freed by libcyaml, with the allocator that cyaml_mem is. */
    mr_recipe_loss *loss = cyaml_mem(NULL, NULL, sizeof *loss);
    if (!loss)
        return MR_FAIL(c->err, NO_MEMORY, "a loss");
    *loss = (mr_recipe_loss){.kind = (mr_loss_kind)kind,
                             .weight = 1,
                             .weight_late = 1,
                             .temperature = (double)NAN,
                             .alpha = 1,
                             .beta = 1};
    finish_loss(loss);
    cyaml_mem(NULL, r->loss, 0);
    r->loss = loss;
    r->n_losses = 1;
    return MR_OK;
}

/* Distillation needs a model and its prompts; alignment, which is with the llm itself, prompts. */
static mr_status check_teacher(const checker *c, unsigned losses)
{
    const mr_recipe *r = c->recipe;
    const bool distills = losses & MR_BIT(MR_LOSS_DISTILL);
    const bool prompts = distills || losses & MR_BIT(MR_LOSS_ALIGN);
    const bool part = mr_recipe_find_part(r, "teacher") != NULL;
    if (prompts && !r->teacher)
        return REFUSE(c, "losses", "loss '%s' needs 'teacher', the bundle.json of the text side",
                      distills ? "distill" : "align");
    if (distills && !part)
        return REFUSE(c, "losses", "loss 'distill' needs a part 'teacher'");
    if (!prompts && r->teacher)
        return REFUSE(c, "teacher", "teacher has no effect without loss 'distill' or 'align'");
    if (!distills && (part || mr_recipe_find_part(r, "teacher_projector")))
        return REFUSE(c, "parts", "part '%s' has no effect without loss 'distill'",
                      part ? "teacher" : "teacher_projector");
    return MR_OK;
}

static mr_status check_losses(const checker *c)
{
    mr_recipe *r = c->recipe;
    unsigned found = 0;
    double weight = 0, late = 0;
    mr_status status = r->n_losses ? MR_OK : add_only_loss(c);
    for (size_t i = 0; status == MR_OK && i < r->n_losses; i++) {
        status = check_loss(c, i, &found);
        weight += r->loss[i].weight;
        late += r->loss[i].weight_late;
    }
    if (status != MR_OK)
        return status;
    if (weight <= 0 || late <= 0)
        return REFUSE(c, "losses", "losses have weight 0 altogether%s",
                      weight > 0 ? " in the second phase" : "");
    return check_teacher(c, found);
}

static mr_status check_sizes(const checker *c)
{
    mr_recipe *r = c->recipe;
    if (has(c, "steps") == has(c, "epochs"))
        return REFUSE(c, has(c, "steps") ? "epochs" : "stage", "%s, expected one of them",
                      r->steps ? "there are both 'steps' and 'epochs'"
                               : "there is neither 'steps' nor 'epochs'");
    if (!r->batch)
        return REFUSE(c, "stage", "batch is missing: how many examples a step learns from");
    if (!r->shards)
        r->shards = r->batch < 4 ? r->batch : 4;
    if (r->shards > r->batch)
        return REFUSE(c, "shards", "shards is %d, expected at most batch (%d)", r->shards,
                      r->batch);
    if (r->steps && r->optimizer.warm_up > r->steps)
        return REFUSE(c, "optimizer.warm_up",
                      "optimizer.warm_up is %" PRId64 ", expected at most steps (%" PRId64 ")",
                      r->optimizer.warm_up, r->steps);
    return MR_OK;
}

static mr_status check_recipe(const checker *c)
{
    mr_status status = check_readers(c);
    if (status == MR_OK)
        status = check_needed(c);
    if (status != MR_OK || c->recipe->stage == MR_STAGE_BPE)
        return status;
    status = check_parts(c);
    if (status == MR_OK)
        status = check_losses(c);
    if (status == MR_OK)
        status = check_sizes(c);
    return status;
}

/* How often a run is saved and looked at does not change what it computes. */
static mr_status set_digest(mr_recipe *recipe, mr_error *err)
{
    static const char *const skip[] = {"checkpoint.", "valid_every", NULL};
    mr_strbuf text = {0};
    mr_strbuf_puts(&text, "recipe 1\n");
    mr_yaml_canonical(&mr_recipe_schema, recipe, skip, &text);
    if (!text.failed)
        snprintf(recipe->digest, sizeof recipe->digest, "%016" PRIx64,
                 mr_hash_xxh3(text.data, text.len));
    mr_status status = text.failed ? MR_FAIL(err, NO_MEMORY, "the digest of a recipe") : MR_OK;
    mr_strbuf_release(&text);
    return status;
}

mr_status mr_recipe_parse(mr_recipe **out, const char *name, const char *text, size_t len,
                          mr_error *err)
{
    mr_yaml_text looked = {0};
    mr_error local = {0}; /* the line goes before a message, also when nobody reads it */
    void *value = NULL;
    mr_status status = mr_yaml_look(&looked, &mr_recipe_schema, name, text, len, &local);
    if (status == MR_OK)
        status = mr_yaml_load(&looked, &mr_recipe_schema, text, len, &value, &local);
    mr_recipe *recipe = value;
    if (status == MR_OK) {
        const checker c = {recipe, &mr_recipe_stages[recipe->stage], &looked, &local};
        status = check_recipe(&c);
    }
    if (status == MR_OK)
        status = set_digest(recipe, &local);
    mr_yaml_done(&looked);
    if (status != MR_OK) {
        mr_recipe_free(recipe);
        if (err)
            *err = local;
        return status;
    }
    *out = recipe;
    return MR_OK;
}

mr_status mr_recipe_load(mr_recipe **out, const char *path, mr_error *err)
{
    mr_arena arena = {0};
    mr_str text = {0};
    mr_status status = mr_file_read(&arena, path, MR_YAML_MAX_BYTES, &text, err);
    if (status == MR_OK)
        status = mr_recipe_parse(out, path, text.data, text.len, err);
    mr_arena_done(&arena);
    return status;
}

void mr_recipe_free(mr_recipe *recipe)
{
    mr_yaml_free(&mr_recipe_schema, recipe);
}

const char *mr_stage_name(mr_stage_kind stage)
{
    return stage < MR_STAGE_COUNT ? mr_recipe_stages[stage].name : "unknown";
}

const char *mr_loss_name(mr_loss_kind kind)
{
    return kind < MR_LOSS_COUNT ? mr_recipe_loss_names[kind] : "unknown";
}

const mr_recipe_part *mr_recipe_find_part(const mr_recipe *recipe, const char *name)
{
    for (size_t i = 0; i < recipe->n_parts; i++) {
        if (strcmp(recipe->part[i].name, name) == 0)
            return &recipe->part[i];
    }
    return NULL;
}
