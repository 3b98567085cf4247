# Tests of training; see CMakeLists.txt for mr_test().
mr_test(losses SOURCES unit/test_losses.c vision_support.c LINK mr_training LABELS unit golden)
mr_test(optimizer SOURCES unit/test_optimizer.c vision_support.c LINK mr_training
        LABELS unit golden threads)
mr_test(decoder_gradients SOURCES unit/test_decoder_gradients.c LINK mr_training LABELS unit)
mr_test(decoder_reference SOURCES unit/test_decoder_reference.c vision_support.c LINK mr_training
        LABELS unit golden)
mr_test(decoder_forward
        SOURCES unit/test_decoder_forward.c engine_support.c vision_support.c LINK mr_training
        LABELS unit golden)
mr_test(training_forward
        SOURCES unit/test_training_forward.c engine_support.c vision_support.c LINK mr_training
        LABELS unit golden)
mr_test(bpe ALLOC_FAILURE SOURCES unit/test_bpe.c LINK mr_training LABELS unit golden)
mr_test(stage_bpe SOURCES unit/test_stage_bpe.c LINK mr_training LABELS unit golden)
mr_test(ops SOURCES unit/test_ops.c LINK mr_training LABELS unit)
mr_test(gradients_modules SOURCES unit/test_gradients_modules.c LINK mr_training LABELS unit)
mr_test(training_reference SOURCES unit/test_training_reference.c vision_support.c LINK mr_training
        LABELS unit golden)
mr_test(recipe SOURCES unit/test_recipe.c LINK mr_training LABELS unit)
mr_test(recipe_refused SOURCES unit/test_recipe_refused.c LINK mr_training LABELS unit)
mr_test(journal SOURCES unit/test_journal.c LINK mr_training LABELS unit)
mr_test(plot SOURCES unit/test_plot.c LINK mr_training LABELS unit)
mr_test(trainer SOURCES unit/test_trainer.c LINK mr_training LABELS unit threads TIMEOUT 300)
mr_test(train_serve SOURCES unit/test_train_serve.c ranker_support.c LINK mr_pipeline mr_training
        LABELS unit)
mr_test(user_served SOURCES unit/test_user_served.c ranker_support.c
        LINK mr_training mr_pipeline LABELS unit threads)
mr_test(training_split SOURCES unit/test_training_split.c LINK mr_training LABELS unit)
mr_test(trainer_failures SOURCES unit/test_trainer_failures.c LINK mr_training LABELS unit)
mr_test(training_refused SOURCES unit/test_training_refused.c LINK mr_training LABELS unit)
mr_test(trainer_interrupted SOURCES unit/test_trainer_interrupted.c LINK mr_training LABELS unit)
mr_test(rank_draw SOURCES unit/test_rank_draw.c LINK mr_training LABELS unit)
mr_test(stage_user SOURCES unit/test_stage_user.c ranker_support.c LINK mr_pipeline mr_training
        LABELS unit threads)
mr_test(stage_caption SOURCES unit/test_stage_caption.c LINK mr_training LABELS unit threads)
mr_test(stage_gradients SOURCES unit/test_stage_gradients.c LINK mr_training LABELS unit)
