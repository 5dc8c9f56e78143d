from anneal.cli import main

main()
