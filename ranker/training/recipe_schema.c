/* recipe_schema.c - the tables behind recipe.c; see recipe_schema.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/recipe_schema.h"

#include <math.h>

#define MAX_FILES   256
#define MAX_LISTS   64
#define MAX_GLOBS   256
#define COUNT_OF(a) (sizeof(a) / sizeof *(a))

/* The table of a struct names each of its fields once: key, kind of value, member. */
#define OPTIONAL           CYAML_FLAG_OPTIONAL
#define TEXT(type, member) KEYED_TEXT(type, #member, member)
#define KEYED_TEXT(type, key, member) \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER | OPTIONAL, type, member, 1, MR_YAML_MAX_STRING)
#define INTEGER(type, member) CYAML_FIELD_INT(#member, OPTIONAL, type, member)
#define REAL(type, member)    CYAML_FIELD_FLOAT(#member, OPTIONAL, type, member)
#define LIST(type, key, member, count, entry, most)                                                \
    CYAML_FIELD_SEQUENCE_COUNT(key, CYAML_FLAG_POINTER | OPTIONAL, type, member, count, &entry, 0, \
                               most)

static const cyaml_schema_value_t text_entry = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, MR_YAML_MAX_STRING)};

const char *const mr_recipe_loss_names[MR_LOSS_COUNT] = {[MR_LOSS_NEXT_TOKEN] = "next_token",
                                                         [MR_LOSS_INFO_NCE] = "info_nce",
                                                         [MR_LOSS_YES_NO] = "yes_no",
                                                         [MR_LOSS_LISTWISE] = "listwise",
                                                         [MR_LOSS_DISTILL] = "distill",
                                                         [MR_LOSS_ALIGN] = "align",
                                                         [MR_LOSS_SAMPLED_SOFTMAX] =
                                                             "sampled_softmax"};

static const cyaml_strval_t loss_words[] = {{"next_token", MR_LOSS_NEXT_TOKEN},
                                            {"info_nce", MR_LOSS_INFO_NCE},
                                            {"yes_no", MR_LOSS_YES_NO},
                                            {"listwise", MR_LOSS_LISTWISE},
                                            {"distill", MR_LOSS_DISTILL},
                                            {"align", MR_LOSS_ALIGN},
                                            {"sampled_softmax", MR_LOSS_SAMPLED_SOFTMAX}};

static const cyaml_strval_t stage_words[] = {{"bpe", MR_STAGE_BPE},
                                             {"next_token", MR_STAGE_NEXT_TOKEN},
                                             {"contrastive", MR_STAGE_CONTRASTIVE},
                                             {"rank", MR_STAGE_RANK},
                                             {"user", MR_STAGE_USER},
                                             {"caption", MR_STAGE_CAPTION}};

static const cyaml_strval_t style_words[] = {{"gpt2", MR_BPE_GPT2}, {"qwen2", MR_BPE_QWEN2}};

static const cyaml_schema_field_t loss_fields[] = {
    CYAML_FIELD_ENUM("kind", CYAML_FLAG_STRICT, mr_recipe_loss, kind, loss_words,
                     COUNT_OF(loss_words)),
    REAL(mr_recipe_loss, weight),
    REAL(mr_recipe_loss, weight_late),
    REAL(mr_recipe_loss, temperature),
    REAL(mr_recipe_loss, alpha),
    REAL(mr_recipe_loss, beta),
    CYAML_FIELD_END};
static const cyaml_schema_value_t loss_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, mr_recipe_loss, loss_fields)};

static const cyaml_schema_field_t part_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, mr_recipe_part, name, 1, MR_YAML_MAX_STRING),
    TEXT(mr_recipe_part, from),
    KEYED_TEXT(mr_recipe_part, "new", made),
    INTEGER(mr_recipe_part, layers),
    INTEGER(mr_recipe_part, width),
    INTEGER(mr_recipe_part, heads),
    INTEGER(mr_recipe_part, kv_heads),
    INTEGER(mr_recipe_part, head_dim),
    INTEGER(mr_recipe_part, ffn),
    INTEGER(mr_recipe_part, vocab),
    INTEGER(mr_recipe_part, latents),
    REAL(mr_recipe_part, deviation),
    REAL(mr_recipe_part, scale),
    REAL(mr_recipe_part, damp),
    CYAML_FIELD_BOOL("share_qk", OPTIONAL, mr_recipe_part, share_qk),
    INTEGER(mr_recipe_part, tokens),
    INTEGER(mr_recipe_part, feature_layer),
    CYAML_FIELD_END};
static const cyaml_schema_value_t part_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, mr_recipe_part, part_fields)};

static const cyaml_schema_field_t lists_fields[] = {
    CYAML_FIELD_STRING_PTR("file", CYAML_FLAG_POINTER, mr_recipe_lists, file, 1,
                           MR_YAML_MAX_STRING),
    LIST(mr_recipe_lists, "tasks", tasks, n_tasks, text_entry, MAX_LISTS),
    REAL(mr_recipe_lists, weight), CYAML_FIELD_END};
static const cyaml_schema_value_t lists_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, mr_recipe_lists, lists_fields)};

static const cyaml_schema_field_t data_fields[] = {
    LIST(mr_recipe_data, "texts", texts, n_texts, text_entry, MAX_FILES),
    LIST(mr_recipe_data, "pairs", pairs, n_pairs, text_entry, MAX_FILES),
    TEXT(mr_recipe_data, items),
    TEXT(mr_recipe_data, users),
    LIST(mr_recipe_data, "lists", lists, n_lists, lists_entry, MAX_LISTS),
    TEXT(mr_recipe_data, captions),
    REAL(mr_recipe_data, pairs_weight),
    REAL(mr_recipe_data, users_weight),
    CYAML_FIELD_BOOL("transductive", OPTIONAL, mr_recipe_data, transductive),
    CYAML_FIELD_END};

static const cyaml_schema_field_t optimizer_fields[] = {REAL(mr_recipe_optimizer, rate),
                                                        REAL(mr_recipe_optimizer, floor),
                                                        INTEGER(mr_recipe_optimizer, warm_up),
                                                        REAL(mr_recipe_optimizer, weight_decay),
                                                        REAL(mr_recipe_optimizer, beta1),
                                                        REAL(mr_recipe_optimizer, beta2),
                                                        REAL(mr_recipe_optimizer, eps),
                                                        REAL(mr_recipe_optimizer, clip),
                                                        CYAML_FIELD_END};

static const cyaml_schema_field_t checkpoint_fields[] = {
    REAL(mr_recipe_checkpoint, minutes), INTEGER(mr_recipe_checkpoint, steps),
    INTEGER(mr_recipe_checkpoint, keep), CYAML_FIELD_END};

static const cyaml_schema_field_t recipe_fields[] = {
    CYAML_FIELD_ENUM("stage", CYAML_FLAG_STRICT, mr_recipe, stage, stage_words,
                     COUNT_OF(stage_words)),
    CYAML_FIELD_UINT("seed", OPTIONAL, mr_recipe, seed),
    TEXT(mr_recipe, bundle),
    TEXT(mr_recipe, tokenizer),
    LIST(mr_recipe, "parts", part, n_parts, part_entry, MR_PART_COUNT),
    LIST(mr_recipe, "freeze", freeze, n_freeze, text_entry, MAX_GLOBS),
    CYAML_FIELD_MAPPING("data", CYAML_FLAG_DEFAULT, mr_recipe, data, data_fields),
    LIST(mr_recipe, "losses", loss, n_losses, loss_entry, MR_LOSS_COUNT),
    REAL(mr_recipe, second_phase),
    TEXT(mr_recipe, teacher),
    INTEGER(mr_recipe, steps),
    REAL(mr_recipe, epochs),
    INTEGER(mr_recipe, batch),
    INTEGER(mr_recipe, accumulate),
    INTEGER(mr_recipe, shards),
    INTEGER(mr_recipe, max_tokens),
    INTEGER(mr_recipe, candidates),
    INTEGER(mr_recipe, history),
    REAL(mr_recipe, user_dropout),
    REAL(mr_recipe, query_dropout),
    REAL(mr_recipe, token_dropout),
    INTEGER(mr_recipe, valid_every),
    CYAML_FIELD_MAPPING("optimizer", OPTIONAL, mr_recipe, optimizer, optimizer_fields),
    CYAML_FIELD_MAPPING("checkpoint", OPTIONAL, mr_recipe, checkpoint, checkpoint_fields),
    INTEGER(mr_recipe, vocabulary),
    CYAML_FIELD_ENUM("style", OPTIONAL | CYAML_FLAG_STRICT, mr_recipe, style, style_words,
                     COUNT_OF(style_words)),
    CYAML_FIELD_BOOL("lowercase", OPTIONAL, mr_recipe, lowercase),
    INTEGER(mr_recipe, min_frequency),
    LIST(mr_recipe, "special", special, n_special, text_entry, MAX_FILES),
    CYAML_FIELD_END};
static const cyaml_schema_value_t recipe_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, mr_recipe, recipe_fields)};

/* A fallback of 0 or NaN that is out of bounds is worked out from other keys: see recipe.c. */
static const mr_yaml_number numbers[] = {
    {"seed", 0, 0x1p53, 0},
    {"parts[].layers", 1, 128, 0},
    {"parts[].width", 8, 16384, 0},
    {"parts[].heads", 1, 256, 0},
    {"parts[].kv_heads", 1, 256, 0},
    {"parts[].head_dim", 2, 1024, 0},
    {"parts[].ffn", 8, 65536, 0},
    {"parts[].vocab", 8, 1048576, 0},
    {"parts[].latents", 1, 64, 0},
    {"parts[].deviation", 1e-6, 1, 0},
    {"parts[].scale", 0, 1e6, 0},
    {"parts[].damp", 0, 1, 0},
    {"parts[].tokens", 1, 65536, 0},
    {"parts[].feature_layer", -1000, 1000, -2},
    {"data.lists[].weight", 0, 1e6, 1},
    {"data.pairs_weight", 0, 1e6, 1},
    {"data.users_weight", 0, 1e6, 0},
    {"losses[].weight", 0, 1e6, 1},
    {"losses[].weight_late", 0, 1e6, (double)NAN},
    {"losses[].temperature", 1e-4, 1e4, (double)NAN},
    {"losses[].alpha", 0, 1e6, 1},
    {"losses[].beta", 0, 1e6, 1},
    {"second_phase", 0, 1, 1},
    {"steps", 1, 1e9, 0},
    {"epochs", 1e-3, 1e6, 0},
    {"batch", 1, 65536, 0},
    {"accumulate", 1, 4096, 1},
    {"shards", 1, 256, 0},
    {"max_tokens", 1, 32768, 128},
    {"candidates", 2, 4096, 32},
    {"history", 1, 4096, 32},
    {"user_dropout", 0, 1, 0.15},
    {"query_dropout", 0, 1, 0},
    {"token_dropout", 0, 0.9, 0},
    {"valid_every", 0, 1e9, 0},
    {"optimizer.rate", 0, 1, 1e-3},
    {"optimizer.floor", 0, 1, 0.1},
    {"optimizer.warm_up", 0, 1e9, 0},
    {"optimizer.weight_decay", 0, 1, 0.01},
    {"optimizer.beta1", 0, 0.9999999, 0.9},
    {"optimizer.beta2", 0, 0.9999999, 0.999},
    {"optimizer.eps", 1e-30, 1, 1e-8},
    {"optimizer.clip", 0, 1e6, 1},
    {"checkpoint.minutes", 0.01, 1e5, 5},
    {"checkpoint.steps", 0, 1e9, 0},
    {"checkpoint.keep", 1, 100, 2},
    {"vocabulary", 260, 1048576, 0},
    {"min_frequency", 1, 1e9, 2},
};

const mr_yaml_schema mr_recipe_schema = {&recipe_value, numbers, COUNT_OF(numbers)};

#define BPE         MR_BIT(MR_STAGE_BPE)
#define NEXT_TOKEN  MR_BIT(MR_STAGE_NEXT_TOKEN)
#define CONTRASTIVE MR_BIT(MR_STAGE_CONTRASTIVE)
#define RANK        MR_BIT(MR_STAGE_RANK)
#define USER        MR_BIT(MR_STAGE_USER)
#define CAPTION     MR_BIT(MR_STAGE_CAPTION)
#define TRAINED     (NEXT_TOKEN | CONTRASTIVE | RANK | USER | CAPTION)

const mr_recipe_reader mr_recipe_readers[] = {
    {"bundle", CONTRASTIVE | RANK | USER},
    {"tokenizer", TRAINED},
    {"parts", TRAINED},
    {"freeze", TRAINED},
    {"data.texts", BPE | NEXT_TOKEN},
    {"data.pairs", CONTRASTIVE},
    {"data.items", CONTRASTIVE | RANK | USER},
    {"data.users", CONTRASTIVE | RANK | USER},
    {"data.lists", CONTRASTIVE | RANK},
    {"data.captions", CAPTION},
    {"data.pairs_weight", CONTRASTIVE},
    {"data.users_weight", CONTRASTIVE | RANK},
    {"data.transductive", CONTRASTIVE | RANK | USER},
    {"losses", TRAINED},
    {"second_phase", RANK},
    {"teacher", RANK},
    {"steps", TRAINED},
    {"epochs", TRAINED},
    {"batch", TRAINED},
    {"accumulate", TRAINED},
    {"shards", TRAINED},
    {"max_tokens", TRAINED},
    {"candidates", RANK},
    {"history", RANK | USER},
    {"user_dropout", RANK},
    {"query_dropout", RANK},
    {"token_dropout", CONTRASTIVE},
    {"valid_every", TRAINED},
    {"optimizer", TRAINED},
    {"checkpoint", TRAINED},
    {"vocabulary", BPE},
    {"style", BPE},
    {"lowercase", BPE},
    {"min_frequency", BPE},
    {"special", BPE},
    {NULL, 0},
};

const char *const mr_recipe_part_names[MR_PART_COUNT] = {
    [MR_PART_LLM] = "llm",
    [MR_PART_ENCODER] = "encoder",
    [MR_PART_TEACHER] = "teacher",
    [MR_PART_TEACHER_PROJECTOR] = "teacher_projector",
    [MR_PART_ITEM_PROJECTOR] = "item_projector",
    [MR_PART_USER] = "user",
    [MR_PART_USER_PROJECTOR] = "user_projector",
    [MR_PART_VISION] = "vision",
    [MR_PART_IMAGE_PROJECTOR] = "image_projector"};

#define LLM             MR_BIT(MR_PART_LLM)
#define ENCODER         MR_BIT(MR_PART_ENCODER)
#define TEACHER         (MR_BIT(MR_PART_TEACHER) | MR_BIT(MR_PART_TEACHER_PROJECTOR))
#define ITEM_PROJECTOR  MR_BIT(MR_PART_ITEM_PROJECTOR)
#define USER_ENCODER    MR_BIT(MR_PART_USER)
#define USER_PROJECTOR  MR_BIT(MR_PART_USER_PROJECTOR)
#define VISION          MR_BIT(MR_PART_VISION)
#define IMAGE_PROJECTOR MR_BIT(MR_PART_IMAGE_PROJECTOR)

const mr_recipe_stage mr_recipe_stages[MR_STAGE_COUNT] = {
    [MR_STAGE_BPE] = {.name = "bpe", .keys = {"data.texts", "vocabulary"}},
    [MR_STAGE_NEXT_TOKEN] = {.name = "next_token",
                             .losses = MR_BIT(MR_LOSS_NEXT_TOKEN),
                             .parts = LLM,
                             .needed = LLM,
                             .keys = {"data.texts"}},
    [MR_STAGE_CONTRASTIVE] = {.name = "contrastive",
                              .losses = MR_BIT(MR_LOSS_INFO_NCE),
                              .parts = ENCODER,
                              .needed = ENCODER,
                              .keys = {"data.pairs|data.lists|data.users"}},
    [MR_STAGE_RANK] = {.name = "rank",
                       .losses = MR_BIT(MR_LOSS_YES_NO) | MR_BIT(MR_LOSS_LISTWISE) |
                                 MR_BIT(MR_LOSS_DISTILL) | MR_BIT(MR_LOSS_ALIGN),
                       .parts =
                           LLM | ENCODER | TEACHER | ITEM_PROJECTOR | USER_ENCODER | USER_PROJECTOR,
                       .needed = LLM,
                       .keys = {"bundle", "data.lists", "data.items"}},
    [MR_STAGE_USER] = {.name = "user",
                       .losses = MR_BIT(MR_LOSS_SAMPLED_SOFTMAX),
                       .parts = ENCODER | USER_ENCODER,
                       .needed = ENCODER | USER_ENCODER,
                       .keys = {"bundle", "data.users", "data.items"}},
    [MR_STAGE_CAPTION] = {.name = "caption",
                          .losses = MR_BIT(MR_LOSS_NEXT_TOKEN),
                          .parts = LLM | VISION | IMAGE_PROJECTOR,
                          .needed = LLM | VISION | IMAGE_PROJECTOR,
                          .keys = {"data.captions"}},
};
