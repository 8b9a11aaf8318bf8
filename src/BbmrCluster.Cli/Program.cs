Console.WriteLine("bbmr");
