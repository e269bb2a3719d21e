package main

import "context"

func newMySQLShop(context.Context, string) (shop, error) { return nil, errNoMySQL }
