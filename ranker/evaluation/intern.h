#include "ranker/model/intern.h" /* moved there: training reads tasks too */
