/* recipe_schema.h - what a recipe may say: keys, words, bounds, defaults, and which stage reads it.
 * Internal to recipe.c; a new key is a row here, a field of recipe.h and a row of docs/training.md.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_RECIPE_SCHEMA_H
#define MR_RANKER_TRAINING_RECIPE_SCHEMA_H

#include "ranker/training/recipe.h"
#include "ranker/training/yaml_schema.h"

extern const mr_yaml_schema mr_recipe_schema;

/* A stage or a loss as a bit of a set. */
#define MR_BIT(kind) (1u << (kind))

/* A key and the stages that read it: all stages for keys that are not listed. Holds for what is
 * below the key too: "data.lists" is said for all its rows. */
typedef struct {
    const char *path;
    unsigned stages;
} mr_recipe_reader;
extern const mr_recipe_reader mr_recipe_readers[]; /* ends with a NULL path */

/* Parts, by the index of mr_recipe_part_names. */
enum {
    MR_PART_LLM,
    MR_PART_ENCODER,
    MR_PART_TEACHER,
    MR_PART_TEACHER_PROJECTOR,
    MR_PART_ITEM_PROJECTOR,
    MR_PART_USER,
    MR_PART_USER_PROJECTOR,
    MR_PART_VISION,
    MR_PART_IMAGE_PROJECTOR,
    MR_PART_COUNT
};
extern const char *const mr_recipe_part_names[MR_PART_COUNT];

typedef struct {
    const char *name;
    unsigned losses; /* that it computes */
    unsigned parts;  /* that it reads */
    unsigned needed; /* of them */
    /* Keys without which it has nothing to do: any of each row, "a|b". NULL-terminated. */
    const char *keys[4];
} mr_recipe_stage;
extern const mr_recipe_stage mr_recipe_stages[MR_STAGE_COUNT];

extern const char *const mr_recipe_loss_names[MR_LOSS_COUNT];

#endif
