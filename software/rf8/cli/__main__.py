from rf8.cli import main

main()
