# Tests of training; see CMakeLists.txt for mr_test().
mr_test(losses SOURCES unit/test_losses.c vision_support.c LINK mr_training LABELS unit golden)
mr_test(optimizer SOURCES unit/test_optimizer.c vision_support.c LINK mr_training
        LABELS unit golden threads)
mr_test(decoder_gradients SOURCES unit/test_decoder_gradients.c LINK mr_training LABELS unit)
mr_test(bpe SOURCES unit/test_bpe.c LINK mr_training LABELS unit golden)
target_link_options(test_bpe PRIVATE -Wl,--wrap=malloc -Wl,--wrap=calloc -Wl,--wrap=realloc)
mr_test(ops SOURCES unit/test_ops.c LINK mr_training LABELS unit)
mr_test(gradients_modules SOURCES unit/test_gradients_modules.c LINK mr_training LABELS unit)
mr_test(training_reference SOURCES unit/test_training_reference.c vision_support.c LINK mr_training
        LABELS unit golden)
mr_test(recipe SOURCES unit/test_recipe.c LINK mr_training LABELS unit)
mr_test(recipe_refused SOURCES unit/test_recipe_refused.c LINK mr_training LABELS unit)
mr_test(journal SOURCES unit/test_journal.c LINK mr_training LABELS unit)
mr_test(plot SOURCES unit/test_plot.c LINK mr_training LABELS unit)
