route();
